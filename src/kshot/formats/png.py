"""Index PNG: the label of each pixel, in the colours that PASCAL VOC tools show. Lossless."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import ShapeError
from kshot.formats.base import ImageWriter, RowWriter
from kshot.io.atomic import atomic_path
from kshot.io.rasters import Raster
from kshot.types import Prediction


class Png(ImageWriter, RowWriter):
    """An index mask per image: 0 = background, 1..N = the classes, 255 = ignore."""

    folder = "masks"
    suffixes = (".png",)

    def write(self, prediction: Prediction, path: Path) -> None:
        """Write the mask. Raises `OutputError`."""
        save_labels(prediction.mask, path)

    @contextmanager
    def open_rows(
        self, path: Path, source: Raster, classes: Sequence[str]
    ) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
        """A palette PNG that grows by rows of labels; `read_mask` gives the same from it as from that of `write`."""
        height, width = source.size_hw
        pack = zlib.compressobj(6)
        with atomic_path(path) as beside, beside.open("wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            # 8 bits, palette, deflate, adaptive filters, not interlaced.
            _chunk(file, b"IHDR", struct.pack(">II5B", width, height, 8, 3, 0, 0, 0))
            _chunk(file, b"PLTE", palette().tobytes())

            def write(labels: NDArray[np.uint8]) -> None:
                # Each row begins with the number of its filter: none.
                _chunk(file, b"IDAT", pack.compress(np.pad(labels, ((0, 0), (1, 0))).tobytes()))

            yield write
            _chunk(file, b"IDAT", pack.flush())
            _chunk(file, b"IEND", b"")


def save_labels(mask: NDArray[np.uint8], path: Path) -> None:
    """Write labels, (h, w) uint8, 255 = ignore, as a palette PNG that `images.read_mask` gives back unchanged.

    Raises `ShapeError` and `OutputError`.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
        raise ShapeError(f"{path}: expected a mask (h, w) of uint8, got {mask.shape} of {mask.dtype}")
    image = Image.fromarray(np.ascontiguousarray(mask))
    # All 256 colours, even unused ones: with fewer Pillow packs several pixels into a byte, which some readers refuse.
    image.putpalette(palette().tobytes())
    with atomic_path(path) as beside:
        image.save(beside, format="PNG")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    if data or kind == b"IEND":
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def palette() -> NDArray[np.uint8]:
    """(256, 3) RGB colours of the VOC devkit: the bits of the label, dealt out to r, g, b from the highest down."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for place in range(8):
        for channel in range(3):
            bit = labels >> (3 * place + channel) & 1
            colours[:, channel] |= bit << (7 - place)
    return colours.astype(np.uint8)


FORMAT = Png()
