"""Read YOLO's folders: a class number and shares of the image's width and height per line."""

from collections.abc import Iterator
from pathlib import Path
from reprlib import repr as short
from typing import Any

import yaml

from kshot.annotations.checked_json import Item
from kshot.annotations.model import LabelledImage, LabelTree, Lazy, Marks, Part
from kshot.annotations.polygons import rle_of
from kshot.errors import SupportError
from kshot.io.images import image_size
from kshot.io.paths import unique_stems, visible, walk

_BEYOND = 0.001  # rounding leads labels this far outside of 0..1


def read_tree(where: Path) -> LabelTree | None:
    """The labels of a folder, or of the one around a data.yaml; None for another layout. Raises `SupportError`."""
    root = where.parent if where.is_file() and where.suffix.lower() in {".yaml", ".yml"} else where
    places = list(_places(root))
    if not places:
        return None
    classes = _classes(root)
    found = [(image, labels, folder) for folder, labels in places for image in sorted(walk(folder))]
    names = {image: image.relative_to(folder).as_posix() for image, _, folder in found}
    if len(places) > 1:  # train/images/a.jpg and valid/images/a.jpg
        names = {image: image.relative_to(root).as_posix() for image, _, _ in found}
    stems = unique_stems(names.values())
    labels_of = {image: _label_file(image, folder, labels) for image, labels, folder in found}

    def read(image: Path) -> LabelledImage:
        return _image(image, names[image], stems[names[image]], labels_of[image], classes)

    return LabelTree(classes, Lazy([image for image, _, _ in found], read), objects=True)


def _places(root: Path) -> Iterator[tuple[Path, Path]]:
    """Pairs of images/ and labels/ where labels/ holds text: in the folder itself, else in its sets."""
    for folder in (root, *(path for path in visible(root) if path.is_dir())):
        images, labels = folder / "images", folder / "labels"
        if images.is_dir() and labels.is_dir() and any(walk(labels, lambda path: path.suffix == ".txt")):
            yield images, labels
            if folder == root:
                return


def _label_file(image: Path, folder: Path, labels: Path) -> Path:
    return (labels / image.relative_to(folder)).with_suffix(".txt")


def _classes(root: Path) -> tuple[str, ...]:
    for path in visible(root):
        if path.suffix.lower() in {".yaml", ".yml"} and path.is_file():
            data = _yaml(path)
            if isinstance(data, dict) and "names" in data:
                return _names(path, data["names"])
    path = root / "classes.txt"
    if path.is_file():
        return _names(path, _text(path).splitlines())
    raise SupportError(f"{root}: labels of YOLO, but no data.yaml with names, nor classes.txt; add one")


def _names(path: Path, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise SupportError(f"{path}: expected names as a list, or as {{0: cat, 1: dog}}, got {short(names)}")
    if len(set(names)) < len(names):
        raise SupportError(f"{path}: a name stands there twice; give each class a name of its own")
    return tuple(names)


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SupportError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SupportError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SupportError(f"{path}: not text ({error})") from error


def _image(image: Path, name: str, stem: str, labels: Path, classes: tuple[str, ...]) -> LabelledImage:
    size_hw, marks, parts = image_size(image), Marks(), []
    for number, line in enumerate(_text(labels).splitlines() if labels.is_file() else (), start=1):
        if line.strip():
            item = Item(f"{labels}: line {number}", {})
            label, shares = _line(item, line.split(), classes)
            pixels = [[x * size_hw[1], y * size_hw[0]] for x, y in zip(shares[::2], shares[1::2], strict=True)]
            if len(pixels) == 2:
                (x, y), (width, height) = pixels
                marks.box(item, label, [[x - width / 2, y - height / 2], [x + width / 2, y + height / 2]])
            else:
                parts.append(Part(label, rle_of(pixels, size_hw)))
    return LabelledImage(name, size_hw, tuple(parts), image, stem, **marks.given())


def _line(item: Item, words: list[str], classes: tuple[str, ...]) -> tuple[str, list[float]]:
    try:
        index, shares = float(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise item.wrong(f"expected a class number and shares of the image, got {short(' '.join(words))}") from error
    if index % 1 or not 0 <= index < len(classes):
        raise item.wrong(f"the class {words[0]}, but data.yaml names 0..{len(classes) - 1}")
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise item.wrong(f"expected a box of 4 numbers or a polygon of at least 3 corners, got {len(shares)} numbers")
    if not all(-_BEYOND <= share <= 1 + _BEYOND for share in shares):
        raise item.wrong("expected shares of the image in 0..1; numbers beyond that may be pixels")
    return classes[int(index)], [min(max(share, 0.0), 1.0) for share in shares]
