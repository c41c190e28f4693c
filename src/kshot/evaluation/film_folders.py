"""Films with true masks, as they lie on the disk: DAVIS (Pont-Tuset et al. 2017), YouTube-VOS, or images/ and masks/.

    JPEGImages/480p/bear/00000.jpg, Annotations/480p/bear/00000.png, ImageSets/2017/val.txt (names of films)
    JPEGImages/bear/00000.jpg, Annotations/bear/00000.png
    images/00000.jpg, masks/00000.png, in the folder itself or in one for each film

Frames are in the order of their names.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.pairing import owner_of
from kshot.errors import DatasetError
from kshot.io.images import read_mask
from kshot.io.paths import image_files, visible

_IMAGES, _MASKS = "JPEGImages", "Annotations"
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
_LEAST = 3  # true masks: the first one is shown, and the last one is not counted


@dataclass(frozen=True)
class FilmFolder:
    """One film with true masks."""

    name: str
    frames: tuple[Path, ...]
    """Images in order, from the first one with a true mask on."""
    masks: dict[Path, Path]
    """{frame: its index mask}: 1..N objects, 0 background, 255 ignored; of the first frame and of others."""

    def mask(self, frame: Path) -> NDArray[np.uint8]:
        """(h, w) labels; a drawing in black and white is one object, 1."""
        return read_mask(self.masks[frame])


def find_films(root: Path) -> tuple[FilmFolder, ...]:
    """The films of a folder by name; of DAVIS those of its newest list val.txt, where there is one.

    Raises `DatasetError` that says what was looked for, and names the film that lacks frames or masks.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; check the path")
    places = _davis(root) if (root / _IMAGES).is_dir() else _plain(root)
    if not places:
        raise DatasetError(
            f"{root}: no film with true masks here; looked for {_IMAGES}/480p/FILM/ with {_MASKS}/480p/FILM/, for both "
            "without 480p, and for images/ with masks/ in the folder or in one for each film"
        )
    return tuple(_film(name, images, masks) for name, (images, masks) in places.items())


def _davis(root: Path) -> dict[str, tuple[Path, Path]]:
    resolution = next((name for name in _RESOLUTIONS if (root / _MASKS / name).is_dir()), "")
    images, masks = root / _IMAGES / resolution, root / _MASKS / resolution
    there = {path.name: (images / path.name, path) for path in visible(masks) if path.is_dir()}
    # DAVIS 2016 lists pairs of files, DAVIS 2017 names of films.
    lists = sorted(root.glob("ImageSets/*/val.txt"), key=lambda path: (path.parent.name.isdigit(), path.parent.name))
    if not lists:
        return there
    entries = [Path(line.split()[0]) for line in lists[-1].read_text(encoding="utf-8").splitlines() if line.strip()]
    names = dict.fromkeys(entry.parent.name if entry.suffix else entry.name for entry in entries)
    missing = [name for name in names if name not in there]
    if missing:
        raise DatasetError(f"{masks}: lacks {', '.join(missing[:5])} of {lists[-1]}; add them, or move the list away")
    return {name: there[name] for name in names}


def _plain(root: Path) -> dict[str, tuple[Path, Path]]:
    folders = [root, *(path for path in visible(root) if path.is_dir())]
    pairs = {folder.resolve().name: (folder / "images", folder / "masks") for folder in folders}
    return {name: pair for name, pair in pairs.items() if all(path.is_dir() for path in pair)}


def _film(name: str, images: Path, masks: Path) -> FilmFolder:
    frames = {path.stem: path for path in image_files(images)}
    named = {owner_of(path.stem, frames): path for path in image_files(masks)}
    alone = sorted(path.name for stem, path in named.items() if stem not in frames)
    if alone:
        raise DatasetError(f"{masks}: {', '.join(alone[:5])} of the film {name}: no frame of this name in {images}")
    order = list(frames)
    shown = [stem for stem in order if stem in named]
    if len(shown) < _LEAST:
        raise DatasetError(
            f"{masks}: {len(shown)} true masks of the film {name}; expected {_LEAST} or more, since the first one is "
            "the support and the last one is not counted"
        )
    kept = order[order.index(shown[0]) :]
    return FilmFolder(name, tuple(frames[stem] for stem in kept), {frames[stem]: named[stem] for stem in shown})
