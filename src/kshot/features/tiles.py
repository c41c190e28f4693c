"""How a large image is cut into overlapping tiles, and the weight of each tile at each pixel."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kshot.errors import SettingError


@dataclass(frozen=True)
class Tiling:
    """Square tiles that overlap. Raises `SettingError`."""

    tile: int
    """Side of a tile, pixels of the image."""
    overlap: int = 64
    """Overlap of neighbours at least, pixels; at most half a tile."""

    def __post_init__(self) -> None:
        if self.tile < 16 or not 0 <= self.overlap <= self.tile // 2:
            raise SettingError(
                f"tiles of {self.tile} pixels with an overlap of {self.overlap}: "
                "expected at least 16 pixels, and an overlap of at most half a tile"
            )

    def spans(self, length: int) -> list[tuple[slice, NDArray[np.float32]]]:
        """Where tiles lie along a side of `length` pixels, and their weights, which sum to 1 at each pixel.

        All tiles have the same length, so they may overlap by more than `overlap`; a side that fits has one tile.
        The weight of a tile rises over the overlap, as a network is worst near the edge of its input.
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
        """Rows, columns and weights (th, tw) of each tile of an image, in reading order."""
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
