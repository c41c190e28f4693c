"""Public-domain photographs that lie inside installed libraries, and masks of them drawn by hand.

The photographs are read by their path in the package; README.md lists each with its source and its terms.
"""

from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageReadError
from kshot.io.images import read_image, read_mask


@dataclass(frozen=True)
class Photo:
    """A photograph that lies inside an installed library."""

    package: str
    path: str
    """In the package."""
    size_hw: tuple[int, int]
    """Of the image that the mask was drawn on."""


PHOTOS = {
    "coins": Photo("skimage", "data/coins.png", (303, 384)),
    "ihc": Photo("skimage", "data/ihc.png", (512, 512)),
    "rocket": Photo("skimage", "data/rocket.jpg", (427, 640)),
    "chelsea": Photo("skimage", "data/chelsea.png", (300, 451)),
    "astronaut": Photo("skimage", "data/astronaut.png", (512, 512)),
    "grace_hopper": Photo("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (600, 512)),
}


def read_photo(name: str) -> NDArray[np.uint8]:
    """(h, w, 3) of one of `PHOTOS`. Raises `ImageReadError` when it is not there, or another image by now."""
    photo = PHOTOS[name]
    spec = find_spec(photo.package)  # finds the folder without importing the library
    if spec is None or spec.origin is None:
        raise ImageReadError(f"the photograph {name} comes with {photo.package}: pip install {photo.package}")
    pixels = read_image(Path(spec.origin).parent / photo.path)
    if pixels.shape[:2] != photo.size_hw:
        raise ImageReadError(
            f"{photo.package}'s {photo.path} is {pixels.shape[:2]}, not the {photo.size_hw} that was drawn on"
        )
    return pixels


def read_truth(name: str) -> NDArray[np.uint8]:
    """(h, w) labels drawn by hand for one of `PHOTOS`."""
    return read_mask((files("kshot.demo") / "masks" / f"{name}.png").read_bytes(), drawn=False)
