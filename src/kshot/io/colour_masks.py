"""Masks whose labels are colours: RGB images, and the palettes of index images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from kshot.io.images import MAX_PIXELS, opened_image

Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ColourMask:
    """A mask and the colours in it."""

    numbers: NDArray[np.intp]
    """(h, w): of a palette image its indices, of others which of the colours a pixel has, from 0."""
    colours: dict[int, Colour]
    """The colour of each number that occurs."""
    palette: bool
    """Whether it is a palette image, whose indices may be labels too."""

    @property
    def grey(self) -> bool:
        """Whether no colour is anything but a grey."""
        return all(len(set(colour)) == 1 for colour in self.colours.values())


def read_colours(path: Path, max_pixels: int = MAX_PIXELS) -> ColourMask | None:
    """A mask by its colours, whatever its alpha; None of an image that has greys alone. Raises `ImageReadError`."""
    with opened_image(path, max_pixels) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode not in {"P", "RGB", "RGBA"}:
            return None
        if image.mode == "P":
            numbers = np.asarray(image).astype(np.intp)
            table = np.zeros((256, 3), int)
            listed = np.asarray(image.getpalette("RGB") or [], int).reshape(-1, 3)
            table[: len(listed)] = listed
            colours = {number: _colour(table[number]) for number in np.unique(numbers).tolist()}
            return ColourMask(numbers, colours, palette=True)
        bands = np.asarray(image.convert("RGB")).astype(np.int32)
    packed = bands[..., 0] << 16 | bands[..., 1] << 8 | bands[..., 2]
    values, numbers = np.unique(packed, return_inverse=True)
    colours = {number: (v >> 16, v >> 8 & 255, v & 255) for number, v in enumerate(values.tolist())}
    return ColourMask(numbers.reshape(packed.shape), colours, palette=False)


def _colour(row: NDArray[np.int_]) -> Colour:
    red, green, blue = row.tolist()
    return red, green, blue
