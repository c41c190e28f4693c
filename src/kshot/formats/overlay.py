"""Overlays for people: the image with each class as a translucent colour inside a crisp outline."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import SettingError
from kshot.formats.base import ImageWriter, RowWriter
from kshot.formats.png import palette
from kshot.io.atomic import atomic_path
from kshot.io.rasters import Raster, preview_pixels
from kshot.types import Prediction

# Okabe and Ito's colours, which colour-blind people tell apart, dealt so that neighbours differ most. Blue goes first
# because fur, skin, soil and leaves are none; black stays out because photographs are full of it.
CLASS_COLOURS = (
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
    (240, 228, 66),  # yellow
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
)
PREVIEW_SIDE = 2048
_LINE, _LINE_SIDE = 2, 1500  # pixels, and the longest side up to which they suffice


class Overlay(ImageWriter, RowWriter):
    """A JPEG or WebP per image, for people to look at."""

    folder = "overlays"
    suffixes = (".jpg", ".jpeg", ".webp")

    def write(self, prediction: Prediction, path: Path) -> None:
        """Write `draw(prediction)` as JPEG or WebP by the suffix. Raises `SettingError` and `OutputError`."""
        drawn = draw(prediction)
        kind = "WEBP" if path.suffix.lower() == ".webp" else "JPEG"
        with atomic_path(path) as beside:
            try:
                # No chroma subsampling: it smears a two pixel line.
                drawn.save(beside, format=kind, quality=92, subsampling=0)
            except ValueError as error:
                raise OSError(str(error)) from error

    @contextmanager
    def open_rows(
        self, path: Path, source: Raster, classes: Sequence[str]
    ) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
        """A JPEG of at most `PREVIEW_SIDE` pixels a side that is drawn when all rows of labels are there."""
        across, down = (preview_pixels(source.size_hw[axis], max(source.size_hw), PREVIEW_SIDE) for axis in (1, 0))
        kept: list[NDArray[np.uint8]] = []
        seen = 0

        def add(labels: NDArray[np.uint8]) -> None:
            nonlocal seen
            inside = down[(down >= seen) & (down < seen + len(labels))]
            kept.append(labels[inside - seen][:, across])
            seen += len(labels)

        yield add
        mask = np.concatenate(kept)
        nothing = np.broadcast_to(np.float32(0), (len(classes) + 1, *mask.shape))
        image = source.preview(PREVIEW_SIDE)
        names = tuple(classes)
        self.write(Prediction(mask, nothing, dict.fromkeys(names, 0.0), names, image), path)


def draw(prediction: Prediction, alpha: float = 0.5) -> Image.Image:
    """The image with its classes marked, an RGB image of the same size.

    alpha: strength of the fill in 0..1; 0 leaves the outlines alone. Raises `SettingError` without a image.
    """
    if prediction.image is None:
        raise SettingError(
            "this prediction carries no image to draw on; make it with Segmenter.predict, or give image= yourself"
        )
    if not 0 <= alpha <= 1:
        raise SettingError(f"expected alpha in 0..1, got {alpha}")
    mask = prediction.mask
    fills, lines = _tables()
    image = Image.fromarray(prediction.image)
    filled = Image.blend(image, _coloured(mask, fills), alpha)
    drawn = Image.composite(filled, image, Image.fromarray(mask > 0))
    edge = _outline(mask, max(_LINE, round(_LINE * max(mask.shape) / _LINE_SIDE)))
    drawn.paste(_coloured(mask, lines), mask=Image.fromarray(edge))
    return drawn


def colour_of(index: int) -> tuple[int, int, int]:
    """The fill (r, g, b) of the class with this label, 1..254: `CLASS_COLOURS` first, then the VOC palette.

    Raises `SettingError`.
    """
    if not 1 <= index <= 254:
        raise SettingError(f"expected a class label in 1..254, got {index}")
    red, green, blue = _tables()[0][index].tolist()
    return red, green, blue


def hex_colour_of(index: int) -> str:
    """The fill of a class as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(index))


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Fill and line colours by label, (256, 3) each; a line is the fill, towards white if dark, black if light."""
    fills = palette()
    fills[1 : len(CLASS_COLOURS) + 1] = CLASS_COLOURS
    brightness = fills @ np.array([0.299, 0.587, 0.114])
    towards = np.where(brightness < 140, 255, 0)[:, None]
    return fills, np.rint(0.4 * fills + 0.6 * towards).astype(np.uint8)


def _coloured(mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
    indexed = Image.fromarray(np.ascontiguousarray(mask))
    indexed.putpalette(colours.tobytes())
    return indexed.convert("RGB")


def _outline(mask: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """(h, w) truth values: marked pixels less than `width` away from another label; the image's rim is none."""
    inner = np.ones(mask.shape, np.bool_)
    for here, there in (np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]):
        same = mask[here] == mask[there]
        inner[here] &= same
        inner[there] &= same
    for step in range(1, width):
        # Crosses and squares in turn shrink by an octagon, so that a line is as wide on a slope as on the level.
        inner = _shrunk(inner, square=step % 2 == 1)
    return ~inner & (mask > 0)


def _shrunk(inner: NDArray[np.bool_], *, square: bool) -> NDArray[np.bool_]:
    """Without the pixels that touch one outside, at a side or, with `square`, at a corner."""
    shrunk = inner.copy()
    shrunk[1:] &= inner[:-1]
    shrunk[:-1] &= inner[1:]
    across = shrunk.copy() if square else inner
    shrunk[:, 1:] &= across[:, :-1]
    shrunk[:, :-1] &= across[:, 1:]
    return shrunk


FORMAT = Overlay()
