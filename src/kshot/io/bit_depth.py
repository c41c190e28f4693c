"""From pixels of any depth to 8 bits: by the depth of the data, or by a stretch that somebody chose."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ShapeError

Stretch: TypeAlias = tuple[float, float]
Converter: TypeAlias = "Callable[[NDArray[Any]], NDArray[np.uint8]]"
_BIT_DEPTHS = (8, 10, 12, 14, 16)


def extremes(array: NDArray[Any]) -> tuple[float, float]:
    """The least and the greatest value."""
    return float(array.min()), float(array.max())


def converter(
    dtype: np.dtype[Any], of_all: Callable[[], tuple[float, float]], name: str, stretch: Stretch | None = None
) -> Converter:
    """What brings arrays of a dtype to uint8, the same for each part of an image.

    of_all: gives the extremes of the whole image, and is asked only where they matter. stretch: (low, high) are 0 and
    255, what lies beyond is clipped, and pixels without a value (NaN) are 0. Raises `ShapeError`.
    """
    if dtype.kind not in "buif":
        raise ShapeError(f"{name}: expected pixels that are numbers or truth values, got {dtype}")
    if stretch is not None:
        return lambda array: _stretched(array, *stretch)
    if dtype == np.uint8:
        return lambda array: array
    if dtype == np.bool_:
        return lambda array: array.astype(np.uint8) * np.uint8(255)
    low, high = of_all()
    if not np.isfinite([low, high]).all():
        raise ShapeError(
            f"{name}: expected finite pixel values, got NaN or infinity; with stretch (--stretch LOW,HIGH) NaN is black"
        )
    if dtype.kind == "f" and low >= 0 and high <= 1:
        return lambda array: np.rint(array * 255).astype(np.uint8)
    if low < 0 or high >= 2**16:
        raise ShapeError(
            f"{name}: expected pixel values of 8 to 16 bits, or floats in 0..1, "
            f"got {dtype} in {low:g}..{high:g}; scale them first, or give stretch (--stretch LOW,HIGH)"
        )
    depth = next(d for d in _BIT_DEPTHS if high < 2**d)
    return lambda array: np.floor(array / 2.0 ** (depth - 8)).astype(np.uint8)


def _stretched(array: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    fraction = (array.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    # A clip before the cast: infinities are bright or dark, and NaN is neither.
    shown: NDArray[np.uint8] = np.rint(np.nan_to_num(fraction.clip(0, 1), nan=0.0) * 255).astype(np.uint8)
    return shown
