"""images/ and masks/ where the labels of a mask are listed in a file beside them."""

import json
from pathlib import Path
from reprlib import repr as short
from typing import Any

from kshot.annotations.model import Export, LabelTree
from kshot.annotations.pairing import in_two_folders, index_shots
from kshot.errors import SupportError
from kshot.formats._index_trees import index_tree
from kshot.formats.png import save_labels
from kshot.io.atomic import write_text
from kshot.types import IGNORE, Shot

LAYOUT = 'index masks: images/x.jpg, masks/x.png, and classes.json ({"1": "cat"}) or classes.txt (a class per line)'
_FILES = ("classes.json", "classes.txt")


def read_shots(folder: Path) -> list[Shot] | None:
    """Shots of the images with a mask; each maps the labels in its mask. None without both folders and a class file.

    Raises `SupportError` (the class file, or masks without images), `MaskError` (labels beyond the classes) and
    `ImageReadError`.
    """
    images, masks = folder / "images", folder / "masks"
    listed = _listed(folder) if images.is_dir() and masks.is_dir() else None
    if listed is None:
        return None
    return index_shots(in_two_folders(images, masks), read_classes(listed))


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """All images with a mask. None and errors as `read_shots` has them."""
    folder, masks = images or where / "images", where / "masks"
    listed = _listed(where) if folder.is_dir() and masks.is_dir() else None
    return index_tree(folder, masks, read_classes(listed)) if listed else None


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/masks, `out`/images and `out`/classes.json; returns `out`.

    Lossless but for scores and for where one object ends and the next of its class begins. Raises `OutputError`.
    """
    for image in tree.images:
        save_labels(image.labels(tree.classes), out / "masks" / f"{image.stem}.png")
        image.place(out / "images", how)
    names = {str(label): name for label, name in enumerate(tree.classes, start=1)}
    write_text(out / "classes.json", json.dumps(names, indent=2) + "\n")
    return out


def _listed(folder: Path) -> Path | None:
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    if len(found) > 1:
        raise SupportError(f"{folder}: both classes.json and classes.txt; keep one")
    return found[0] if found else None


def read_classes(path: Path) -> dict[int, str]:
    """{label: class} of a classes.json ({"1": "cat"}) or a classes.txt (line 1 = label 1); background is left out.

    In a classes.txt a first line `background` has the label 0. Raises `SupportError` that names the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        classes = _from_json(path, json.loads(text)) if path.suffix == ".json" else _from_lines(path, text)
    except OSError as error:
        raise SupportError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SupportError(f"{path}: not a list of classes ({error})") from error
    if not classes:
        raise SupportError(f"{path}: names no class")
    names = list(classes.values())
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SupportError(f"{path}: {', '.join(twice)} stands there twice; give each label a name of its own")
    return classes


def _from_json(path: Path, data: Any) -> dict[int, str]:
    if not isinstance(data, dict):
        raise SupportError(f'{path}: expected {{"1": "cat", "2": "dog"}}, got {short(data)}')
    classes = {}
    for key, name in data.items():
        label = int(key) if key.isascii() and key.isdigit() else -1
        if not 0 <= label < IGNORE or not isinstance(name, str) or not name.strip():
            raise SupportError(f"{path}: expected labels in 1..254 with their names, got {key!r}: {short(name)}")
        if label:
            classes[label] = name.strip()
    return classes


def _from_lines(path: Path, text: str) -> dict[int, str]:
    names = [line.strip() for line in text.rstrip().splitlines()]
    if "" in names:
        raise SupportError(f"{path}: line {names.index('') + 1} is empty; the line number is the label, so name each")
    first = 0 if names and names[0].strip("_").lower() == "background" else 1
    if len(names) + first > IGNORE:
        raise SupportError(f"{path}: {len(names)} classes; an index mask holds at most 254")
    return {label: name for label, name in enumerate(names, start=first) if label}
