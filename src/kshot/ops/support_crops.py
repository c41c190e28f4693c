"""Cropping a support to what it shows and its surroundings, so that a small object covers more than a few patches.

Cropping is one of the visual prompts of CLIPSeg (Lüddecke & Ecker, CVPR 2022, "visual prompt engineering"). Objects of
supports also get about one scale by it, and other objects of the same class that nobody marked fall away.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_CONTEXTS = (1.2, 2.0)  # sides of crops relative to the longer side of what is shown in them
_MIN_SIDE = 96  # pixels; what is smaller is blurred when it is enlarged
_WHOLE = 0.9  # fraction of an image from which on a crop is not worth an encoding of its own


class Window(NamedTuple):
    """A part of an image in pixels; `bottom` and `right` are outside."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of an image (h, w, 3), as a copy."""
        return np.ascontiguousarray(image[self.slices])

    def moved(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, 2) or boxes (n, 4) of the image in pixels of the window."""
        moved: NDArray[np.float64] = xy - np.tile([self.left, self.top], xy.shape[1] // 2)
        return moved


def support_windows(shown: NDArray[np.bool_]) -> tuple[Window, ...]:
    """Different squares around all true pixels of (h, w), within the image; none that would be almost all of it."""
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not len(rows):
        return ()
    box = (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)
    longer, windows = max(stop - start for start, stop in box), []
    for context in _CONTEXTS:
        side = max(_MIN_SIDE, round(context * longer))
        rows_seen, columns_seen = (
            _around(*ends, min(side, pixels), pixels) for ends, pixels in zip(box, shown.shape, strict=True)
        )
        window = Window(*rows_seen, *columns_seen)
        if window.size_hw[0] * window.size_hw[1] < _WHOLE * shown.size and window not in windows:
            windows.append(window)
    return tuple(windows)


def _around(start: int, stop: int, length: int, pixels: int) -> tuple[int, int]:
    """A stretch of pixels that holds another one, in its middle as far as the image allows."""
    first = min(max((start + stop - length + 1) // 2, 0), pixels - length)
    return first, first + length
