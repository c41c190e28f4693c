"""Folders as people have them: which layout of supports it is, and which images are in it.

A support folder is tried as support.yaml, VOC, COCO, then the layouts of later formats by name, then index masks, and
class folders last, because those fit almost any folder.
"""

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from kshot import _plugins
from kshot.errors import InputError, SupportError
from kshot.formats._pairs import is_picture, visible, walk
from kshot.formats.images import SUFFIXES, read_mask
from kshot.types import Shot, SupportSet

_FIRST, _LAST = ("support_yaml", "voc", "coco"), ("index_masks", "class_folders")


def read_support(folder: Path, classes: Sequence[str] = ()) -> SupportSet:
    """Read the shots of a folder of any known layout; `source` says which it was.

    classes: keep these alone, in this order; other classes become background in masks that show both. By default all
    that some shot shows, by their labels where the masks have labels, as the class list has them.
    Raises `SupportError`: no such folder, nothing in it, no layout known (what was looked for and what is there),
    no shot of a wanted class; what a layout refuses comes from its reader.
    """
    if not folder.is_dir():
        problem = "a file, where a support folder was expected" if folder.exists() else "no such folder"
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


def readers() -> list[ModuleType]:
    """The formats that read supports, in the order in which they are tried."""
    having = {name: m for name, m in _plugins.members("formats").items() if hasattr(m, "LAYOUT")}
    between = [name for name in having if name not in _FIRST + _LAST]
    return [having[name] for name in (*_FIRST, *between, *_LAST)]


def list_images(where: str | Path) -> list[Path]:
    """Image files of a folder and all below it, of a glob pattern, or the one file; sorted by their path.

    Hidden files and folders are skipped; a folder's links are followed, each real folder once, a pattern's `**` follows
    none. Raises `InputError` when there is none.
    """
    path = Path(where)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(walk(path))
    elif glob.has_magic(str(where)):
        found = _matches(str(where))
    else:
        raise InputError(f"{where}: no such file or folder; check the path")
    if not found:
        raise InputError(f"{where}: no image there; looked for {', '.join(sorted(SUFFIXES))}")
    return sorted(found, key=lambda image: image.as_posix())


def _matches(pattern: str) -> list[Path]:
    """Image files that match; `**` enters no linked folder, as links may lead in circles."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    try:
        found = [path for path in base.glob("/".join(parts[fixed:])) if is_picture(path) and path.is_file()]
    except ValueError as error:
        raise InputError(f"{pattern}: not a pattern ({error})") from error
    return [path for path in found if not any(part[0] == "." for part in path.relative_to(base).parts)]


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
