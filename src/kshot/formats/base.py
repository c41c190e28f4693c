"""Folders as people have them: which layout of supports it is, and which images are in it.

A support folder is tried as support.yaml, a run of kshot, VOC, COCO, then the layouts of later formats by name, then
index masks, and class folders last, because those fit almost any folder.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from kshot import _plugins
from kshot.annotations.model import LabelledImage, LabelTree, Lazy, Marks, Part
from kshot.errors import SettingError, SupportError
from kshot.io.images import image_size, read_mask
from kshot.io.paths import unique_stems, visible, walk
from kshot.types import IGNORE, Prediction, Shot, SupportSet

# A run folder may hold a COCO file and a VOC tree of its own, without the images that only its settings know.
_FIRST, _LAST = ("support_yaml", "kshot_run", "voc", "coco"), ("index_masks", "class_folders")


def read_support(folder: Path, classes: Sequence[str] = ()) -> SupportSet:
    """Read the shots of a folder of any known layout; `source` says which it was.

    classes: keep these alone, in this order; other classes become background in masks that show both. By default all
    that some shot shows, by their labels where the masks have labels, as the class list has them.
    Raises `SupportError`: no such folder, nothing in it, no layout known (what was looked for and what is there),
    no shot of a wanted class; what a layout refuses comes from its reader.
    """
    if not folder.is_dir():
        problem = "a file, where a support folder was expected" if folder.exists() else "no such folder; check the path"
        raise SupportError(f"{folder}: {problem}")
    entries = visible(folder)
    if not entries:
        raise SupportError(f"{folder}: the folder is empty; put images and their masks there")
    layouts = readers()
    for module in layouts:
        shots = module.read_shots(folder)
        if shots is not None:
            source = f"{module.LAYOUT.split(':')[0]} in {folder.as_posix().rstrip('/')}/"
            kept = _only(shots, classes, source) if classes else shots
            return SupportSet(kept, tuple(dict.fromkeys(classes)) or _in_order(shots), source)
    looked_for = "\n".join(f"  {module.LAYOUT}" for module in layouts)
    found = ", ".join(path.name + ("/" if path.is_dir() else "") for path in entries[:5])
    more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
    raise SupportError(f"{folder}: no layout that is known; looked for\n{looked_for}\nand found {found}{more}")


@cache
def readers() -> list[ModuleType]:
    """The formats that read supports, in the order in which they are tried."""
    having = {name: m for name, m in _plugins.members("formats").items() if hasattr(m, "LAYOUT")}
    between = [name for name in having if name not in _FIRST + _LAST]
    return [having[name] for name in (*_FIRST, *between, *_LAST)]


def read_labels(where: Path, images: Path | None = None) -> tuple[LabelTree, str]:
    """The labels of a folder of any known layout, or of one annotation file, and which layout it was.

    images: where its images are, when not beside it. Layouts that are read as supports alone give their masks and
    boxes, without images that show nothing. Raises `SupportError` as `read_support` does.
    """
    if not where.exists():
        raise SupportError(f"{where}: no such file or folder; check the path")
    layouts = readers()
    for module in layouts:
        if hasattr(module, "read_tree"):
            tree = module.read_tree(where, images)
        else:
            shots = module.read_shots(where) if where.is_dir() else None
            tree = None if shots is None else tree_of(shots, where)
        if tree is not None:
            return tree, f"{module.LAYOUT.split(':')[0]} in {where.as_posix()}"
    looked_for = "\n".join(f"  {module.LAYOUT}" for module in layouts)
    raise SupportError(f"{where}: no labels of a layout that is known; looked for\n{looked_for}")


def annotated(where: Path) -> frozenset[Path]:
    """Resolved paths of the images of a folder that have labels there, and of masks beside them; none without labels.

    Labels are those of any layout that tells which image they belong to, else a PNG beside an image of its name
    (x.png or x_mask.png). Raises `SupportError` when labels are damaged.
    """
    if not where.is_dir():
        return frozenset()
    for module in readers():
        tree = module.read_tree(where, None) if hasattr(module, "read_tree") else None
        if tree is not None:
            labelled = [i for i in tree.images if i.parts or i.boxes or i.points or i.lines]
            return frozenset(image.path.resolve() for image in labelled if image.path)
    # Class folders are too strict here: most pictures have no mask, and lie where they like.
    groups: dict[Path, list[Path]] = {}
    for path in walk(where):
        groups.setdefault(path.with_name(path.stem.removesuffix("_mask")), []).append(path)
    pairs = [group for group in groups.values() if len(group) > 1 and any(p.suffix.lower() == ".png" for p in group)]
    return frozenset(path.resolve() for group in pairs for path in group)


def tree_of(shots: Sequence[Shot], root: Path) -> LabelTree:
    """The labels of shots that have masks or boxes, by the paths of their images below `root`."""
    by_image: dict[Path, list[Shot]] = {}
    for shot in shots:
        if isinstance(shot.image, Path) and shot.prompt in {"mask", "boxes", "points"}:
            by_image.setdefault(shot.image, []).append(shot)
    names = {path: Path(os.path.relpath(path, root)).as_posix() for path in by_image}
    stems = unique_stems(names.values())

    def read(path: Path) -> LabelledImage:
        marks = Marks()
        parts = [part for shot in by_image[path] for part in _marked(shot, marks)]
        return LabelledImage(names[path], image_size(path), tuple(parts), path, stems[names[path]], **marks.given())

    return LabelTree(_in_order([shot for shots in by_image.values() for shot in shots]), Lazy(list(by_image), read))


def _marked(shot: Shot, marks: Marks) -> Iterator[Part]:
    """The parts of a shot's mask; boxes and points go to `marks`."""
    if not shot.classes:
        return
    label = shot.classes[0]
    if shot.boxes is not None:
        marks.boxes.setdefault(label, []).extend(np.asarray(shot.boxes).tolist())
    if shot.points is not None:
        marks.points.setdefault(label, []).extend(np.asarray(shot.points).tolist())
    if shot.mask is None:
        return
    mask = read_mask(shot.mask)
    named = {1: shot.label} if isinstance(shot.label, str) else shot.label
    if isinstance(shot.label, str):
        mask = np.where(mask == IGNORE, mask, (mask > 0).astype(np.uint8))
    for index, name in named.items():
        if (mask == index).any():
            yield Part.of(mask == index, name)
    if (mask == IGNORE).any():
        yield Part.of(mask == IGNORE, "", ignore=True)


def _in_order(shots: Sequence[Shot]) -> tuple[str, ...]:
    labels = {name: label for shot in shots if not isinstance(shot.label, str) for label, name in shot.label.items()}
    return tuple(dict.fromkeys((*sorted(labels, key=labels.__getitem__), *(n for shot in shots for n in shot.classes))))


def _only(shots: Sequence[Shot], classes: Sequence[str], source: str) -> list[Shot]:
    shown = dict.fromkeys(name for shot in shots for name in shot.classes)
    missing = [name for name in classes if name not in shown]
    if missing:
        raise SupportError(f"{source}: no shot shows {', '.join(missing)}; it has {', '.join(shown) or 'none'}")
    return [kept for kept in (_restricted(shot, classes) for shot in shots) if kept is not None]


def _restricted(shot: Shot, classes: Sequence[str]) -> Shot | None:
    """The shot with these classes alone; None when it shows none of them."""
    if isinstance(shot.label, str):
        return shot if shot.label in classes else None
    wanted = {label: name for label, name in shot.label.items() if name in classes}
    if len(wanted) == len(shot.label) or not wanted or shot.mask is None:
        return shot if wanted else None
    # A label that is left out of the mapping would be refused as undeclared, so the array itself says background.
    mask = read_mask(shot.mask, drawn=False)
    mask = np.where(np.isin(mask, list(shot.label.keys() - wanted.keys())), np.uint8(0), mask)
    return replace(shot, mask=mask, label=wanted)


def save(prediction: Prediction, path: Path) -> Path:
    """Write one prediction in the first format, by name, whose `WRITES` holds the path's suffix; returns the path."""
    writers: dict[str, ModuleType] = {}
    for module in _plugins.members("formats").values():
        for suffix in getattr(module, "WRITES", ()):
            writers.setdefault(suffix, module)
    if path.suffix.lower() not in writers:
        raise SettingError(
            f"{path}: no format writes {path.suffix or 'a name without suffix'}; use {', '.join(writers)}"
        )
    writers[path.suffix.lower()].write(prediction, path)
    return path
