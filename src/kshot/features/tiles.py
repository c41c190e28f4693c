"""How a large picture is cut into tiles that overlap, and how much each tile says at each pixel."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kshot.errors import SettingError


@dataclass(frozen=True)
class Tiling:
    """tile: side of a tile, in pixels of the image. overlap: how far neighbours reach into each other at least.

    Raises `SettingError`.
    """

    tile: int
    overlap: int = 64

    def __post_init__(self) -> None:
        if self.tile < 16 or not 0 <= self.overlap <= self.tile // 2:
            raise SettingError(
                f"tiles of {self.tile} pixels with an overlap of {self.overlap}: "
                "expected at least 16 pixels, and an overlap of at most half a tile"
            )

    def spans(self, length: int) -> list[tuple[slice, NDArray[np.float32]]]:
        """Where tiles lie along a side of `length` pixels, and their weights, which sum to 1 at each pixel.

        All tiles have the same length, so they lie a little closer than they must; a side that fits has one tile.
        Weights rise from an edge inside the image over the overlap: a network sees least at the rim of what it sees.
        """
        if length <= self.tile:
            return [(slice(0, length), np.ones(length, np.float32))]
        count = math.ceil((length - self.overlap) / (self.tile - self.overlap))
        starts = [round(index * (length - self.tile) / (count - 1)) for index in range(count)]
        weights = np.zeros((count, length))
        for index, start in enumerate(starts):
            weights[index, start : start + self.tile] = self._ramp(index > 0, index < count - 1)
        weights /= weights.sum(0)
        spans = [slice(start, start + self.tile) for start in starts]
        return [(span, row[span].astype(np.float32)) for span, row in zip(spans, weights, strict=True)]

    def windows(self, size_hw: tuple[int, int]) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        """Rows, columns and weights (th, tw) of each tile of a picture, in reading order."""
        columns = self.spans(size_hw[1])
        for rows, down in self.spans(size_hw[0]):
            for across, along in columns:
                yield rows, across, down[:, None] * along

    def _ramp(self, before: bool, after: bool) -> NDArray[np.float64]:
        ramp = np.ones(self.tile)
        rise = (np.arange(self.overlap) + 0.5) / max(1, self.overlap)
        if before and self.overlap:
            ramp[: self.overlap] = rise
        if after and self.overlap:
            ramp[-self.overlap :] *= rise[::-1]
        return ramp
