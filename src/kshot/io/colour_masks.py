"""Masks whose labels are colours: RGB images, and the palettes of index images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import MaskError
from kshot.io.images import opened_image, upright

Colour = tuple[int, int, int]
_MOST_COLOURS = 2**16
_STRIP_PIXELS = 2**22


@dataclass(frozen=True, eq=False)
class ColourMask:
    """A mask and the colours in it."""

    numbers: NDArray[np.integer]
    """(h, w): of a palette image its indices, of others which of the colours a pixel has, from 0."""
    colours: dict[int, Colour]
    """The colour of each number that occurs."""
    palette: bool
    """Whether it is a palette image, whose indices may be labels too."""

    @property
    def grey(self) -> bool:
        """Whether no colour is anything but a grey."""
        return all(len(set(colour)) == 1 for colour in self.colours.values())


def read_colours(path: Path, max_pixels: int | None = None) -> ColourMask | None:
    """A mask by its colours, whatever its alpha; None of an image that has greys alone.

    Raises `ImageReadError`, and `MaskError` for more than 65,536 colours.
    """
    with opened_image(path, max_pixels) as file:
        image = upright(file)
        if image.mode not in {"P", "RGB", "RGBA"}:
            return None
        if image.mode == "P":
            indices = np.asarray(image)
            table = np.zeros((256, 3), int)
            listed = np.asarray(image.getpalette("RGB") or [], int).reshape(-1, 3)
            table[: len(listed)] = listed
            colours = {number: _colour(table[number]) for number in np.unique(indices).tolist()}
            return ColourMask(indices, colours, palette=True)
        numbers = np.empty((image.height, image.width), np.uint16)
        values = np.unique(np.concatenate([np.unique(strip) for _, strip in _packed(image)]))
        if len(values) > _MOST_COLOURS:
            raise MaskError(f"{path}: {len(values):,} colours, as a photograph has, where a mask was expected")
        for rows, strip in _packed(image):
            numbers[rows] = np.searchsorted(values, strip)
    colours = {number: (v >> 16, v >> 8 & 255, v & 255) for number, v in enumerate(values.tolist())}
    return ColourMask(numbers, colours, palette=False)


def _packed(image: Image.Image) -> Iterator[tuple[slice, NDArray[np.int32]]]:
    """Strips of an image, a number for each pixel's colour; whole they would take many times the memory."""
    step = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        rows = slice(top, min(top + step, image.height))
        strip = np.asarray(image.crop((0, top, image.width, rows.stop)).convert("RGB")).astype(np.int32)
        yield rows, strip[..., 0] << 16 | strip[..., 1] << 8 | strip[..., 2]


def _colour(row: NDArray[np.int_]) -> Colour:
    red, green, blue = row.tolist()
    return red, green, blue
