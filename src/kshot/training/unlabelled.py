"""Unlabelled photographs, and the views of them that encoders learn from. Every view is pure in (seed, photo, view)."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from kshot.errors import ImageReadError, TrainingError
from kshot.io.images import read_image, read_mask
from kshot.io.paths import list_images

log = logging.getLogger(__name__)
_RATIOS = (3 / 4, 4 / 3)  # width to height of a view
_SHARE = 0.04  # of the photographs is held out, and at most so many
_MOST_HELD = 200
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Photos:
    """learned, held: files to learn from and to validate on, in an order that hangs on their names alone."""

    learned: tuple[Path, ...]
    held: tuple[Path, ...]

    @classmethod
    def split(cls, readable: Sequence[Path]) -> "Photos":
        """Hold out a few; raises `TrainingError` when too few are left to learn from."""
        if len(readable) < 2:
            raise TrainingError(f"{len(readable)} readable images: training needs two at least, and many to be useful")
        held = min(_MOST_HELD, max(1, round(_SHARE * len(readable))))
        return cls(tuple(readable[held:]), tuple(readable[:held]))


def find_photos(folder: Path, limit: int | None = None) -> list[Path]:
    """The readable images of a folder and its sub-folders, shuffled by the hash of their names.

    Damaged ones are told of and left out. Raises `InputError` for a folder without images and `TrainingError` when none
    can be read.
    """
    found = sorted(list_images(folder), key=lambda path: _hash(path.relative_to(folder).as_posix()))
    readable = [path for path in found[:limit] if _readable(path)]
    if not readable:
        raise TrainingError(f"{folder}: no readable image in it ({len(found)} files looked like one)")
    return readable


def _readable(path: Path) -> bool:
    try:
        read_image(path)
    except ImageReadError as error:
        log.warning("left out: %s", error)
        return False
    return True


def rng(seed: int, *indices: int) -> np.random.Generator:
    """Chance that hangs on nothing but these numbers."""
    return np.random.default_rng((seed, *indices))


def region(size_hw: tuple[int, int], chance: np.random.Generator, least: float) -> tuple[int, int, int, int]:
    """left, top, right, bottom of a view: `least` of the area at the least, at most all of it."""
    height, width = size_hw
    ratio = float(np.exp(chance.uniform(*np.log(_RATIOS))))
    area = height * width * chance.uniform(least, 1.0)
    wide, high = min(width, round((area * ratio) ** 0.5)), min(height, round((area / ratio) ** 0.5))
    left, top = int(chance.integers(width - wide + 1)), int(chance.integers(height - high + 1))
    return left, top, left + max(wide, 1), top + max(high, 1)


def cut(picture: Picture, box: tuple[int, int, int, int], side: int) -> Image.Image:
    """A square view of side pixels; its aspect ratio gives way."""
    return Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC, box=box)


def recolour(view: Image.Image, chance: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation changed by chance, and seldom all colour taken away."""
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = kind(view).enhance(float(chance.uniform(0.65, 1.35)))
    return ImageEnhance.Color(view).enhance(0.0) if chance.random() < 0.05 else view


def to_pixels(views: Sequence[Image.Image], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(b, 3, side, side) normalised."""
    stacked = torch.from_numpy(np.stack([np.asarray(view) for view in views])).permute(0, 3, 1, 2).float() / 255
    return (stacked - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def mask_of(photo: Path, folder: Path, masks: Path | None) -> Picture | None:
    """(h, w) uint8 mask of a photograph, from the same place below `masks` as .png; None where there is none."""
    path = masks / photo.relative_to(folder).with_suffix(".png") if masks else None
    return read_mask(path) if path is not None and path.is_file() else None


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
