"""Do the scores mean what they say? Binned counts that add, and the calibration error out of them.

Guo et al., "On calibration of modern neural networks", ICML 2017, section 2: pixels are binned by the score of
their best class; the error is the mean gap between score and fraction of right pixels, weighted by bin size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ShapeError
from kshot.metrics.counts import IGNORE, Counts, check_label_map
from kshot.metrics.scores import ratios

# Scores are rounded to this many steps a bin and summed as whole steps: floats would not add exactly.
_FINE = 1024


@dataclass(frozen=True, eq=False)
class CalibrationCounts:
    """Pixels, summed scores (in steps of 1 / 1024 B) and right pixels per bin: (B,) int64; `+` adds exactly."""

    pixels: Counts
    confidence: Counts
    right: Counts

    def __post_init__(self) -> None:
        if not self.pixels.ndim == 1 or not self.pixels.shape == self.confidence.shape == self.right.shape:
            raise ShapeError(f"expected three arrays (B,), got {self.pixels.shape}, {self.confidence.shape}, ...")

    @classmethod
    def zeros(cls, bins: int = 15) -> "CalibrationCounts":
        """The counts of nothing."""
        return cls.from_array(np.zeros((3, bins), np.int64))

    @classmethod
    def from_scores(cls, scores: NDArray[Any], truth: Any, bins: int = 15, ignore: int = IGNORE) -> "CalibrationCounts":
        """Count one image. scores: (N+1, h, w) in 0..1. truth: (h, w) labels in 0..N or `ignore`.

        Raises `ShapeError` and `MaskError`.
        """
        if scores.ndim != 3 or scores.dtype.kind != "f":
            raise ShapeError(f"expected scores (N+1, h, w) as floats, got {scores.shape} of {scores.dtype}")
        check_label_map(truth, len(scores) - 1, "the truth", ignore=ignore, size_hw=scores.shape[1:])
        best, label = _best(scores)
        if not (best.min() >= 0 and best.max() <= 1 + 1e-4):
            raise ShapeError(f"expected scores in 0..1, got {best.min()}..{best.max()}")
        # Even codes are wrong pixels, odd ones right; ignored pixels go to codes past the end.
        codes = np.rint(np.minimum(best, 1) * (bins * _FINE)).astype(np.int32) * 2 + (label == truth)
        size = 2 * (bins * _FINE + 1)
        fine = np.bincount(np.where(truth == ignore, size, codes).ravel(), minlength=size)[:size]
        return cls._binned(fine.reshape(-1, 2), bins)

    @classmethod
    def _binned(cls, fine: NDArray[Any], bins: int) -> "CalibrationCounts":
        """fine: (bins * _FINE + 1, 2) wrong and right pixels per step; step 0 joins the first bin."""
        binned = fine[1:].reshape(bins, _FINE, 2)
        steps = np.arange(1, bins * _FINE + 1).reshape(bins, _FINE)
        confidence = (binned.sum(2) * steps).sum(1)
        binned[0, 0] += fine[0]
        return cls(binned.sum((1, 2)), confidence, binned[..., 1].sum(1))

    def __add__(self, other: "CalibrationCounts") -> "CalibrationCounts":
        if self.pixels.shape != other.pixels.shape:
            raise ShapeError(f"counts of {len(self.pixels)} and {len(other.pixels)} bins do not add")
        return CalibrationCounts.from_array(self.to_array() + other.to_array())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CalibrationCounts) and np.array_equal(self.to_array(), other.to_array())

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(B,) fraction of right pixels; nan in an empty bin."""
        return ratios(self.right, self.pixels)

    @property
    def mean_confidence(self) -> NDArray[np.float64]:
        """(B,) mean score; nan in an empty bin."""
        return ratios(self.confidence / (len(self.pixels) * _FINE), self.pixels)

    @property
    def error(self) -> float:
        """Expected calibration error in 0..1; nan without pixels."""
        total = int(self.pixels.sum())
        if not total:
            return float("nan")
        return float(np.abs(self.right - self.confidence / (len(self.pixels) * _FINE)).sum() / total)

    def to_array(self) -> Counts:
        """(3, B) int64: pixels, confidence, right."""
        return np.stack([self.pixels, self.confidence, self.right])

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> "CalibrationCounts":
        """Undo `to_array`."""
        if array.ndim != 2 or array.shape[0] != 3:
            raise ShapeError(f"expected calibration counts of shape (3, bins), got {array.shape}")
        return cls(*np.asarray(array, np.int64))


def _best(scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """(h, w) highest score and its label; as max and argmax over the first axis, many times faster."""
    best, label = scores[0], np.zeros(scores.shape[1:], np.uint8)
    for n in range(1, len(scores)):
        label = np.maximum(label, (scores[n] > best) * np.uint8(n))
        best = np.maximum(best, scores[n])
    return best, label
