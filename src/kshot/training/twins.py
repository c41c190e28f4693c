"""Photographs that also lie elsewhere: what is to be tested on must not be trained on, whatever it is called there."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.io.images import read_image
from kshot.io.paths import list_images

# Of 1.36 million pairs of COCO's and other photographs 25 lay above it, copies all, two of them slightly cropped; the
# twelve pairs that followed, at 0.86 and less, were different scenes. Wide plain scenes may lie above it by themselves.
SAME = 0.9
_SIDE = 24


def without(photos: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    """The photographs that do not show what an image of these folders shows, sub-folders included.

    Two images are the same when their grey thumbnails correlate by more than `SAME`: another size, compression or
    colour does not hide one, a crop does. Raises `InputError` for a folder without images.
    """
    known = [_thumbnail(path) for folder in folders for path in list_images(folder)]
    if not known:
        return list(photos)
    others = np.stack(known)
    return [photo for photo in photos if float((others @ _thumbnail(photo)).max()) <= SAME]


def _thumbnail(path: Path) -> NDArray[np.float32]:
    """(side * side,) grey values of mean zero and unit length."""
    grey = Image.fromarray(read_image(path)).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32).ravel()
    values = values - values.mean()
    unit: NDArray[np.float32] = values / max(float(np.linalg.norm(values)), 1e-9)
    return unit
