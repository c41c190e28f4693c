"""What DAVIS measures of an object in a film: region similarity J, contour accuracy F, and statistics over frames.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016, section 5.
Contours and their tolerance are those of the DAVIS 2017 evaluation code: half a pixel towards the origin, and 0.8 % of
the diagonal, rounded up, with a disc.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ShapeError
from kshot.metrics.boundary import within

Truths = NDArray[np.bool_]
TOLERANCE = 0.008
_QUARTERS = 4


def region_similarity(found: Truths, true: Truths, ignored: Truths | None = None) -> float:
    """J of one object in one frame, masks (h, w): IoU without what is ignored; 1 where both are empty."""
    _check(found, true, ignored)
    counted = True if ignored is None else ~ignored
    union = int(np.count_nonzero((found | true) & counted))
    return int(np.count_nonzero(found & true & counted)) / union if union else 1.0


def contour_accuracy(found: Truths, true: Truths, ignored: Truths | None = None) -> float:
    """F of one object in one frame, masks (h, w): do their contours agree within the tolerance?

    Of ignored pixels neither mask has any. 1 where no mask has a contour, 0 where one has none.
    """
    _check(found, true, ignored)
    reach = math.ceil(TOLERANCE * math.hypot(*true.shape))
    lines = [_contour(mask if ignored is None else mask & ~ignored) for mask in (found, true)]
    counts = [int(np.count_nonzero(line)) for line in lines]
    if not all(counts):
        return float(counts[0] == counts[1])
    precision, recall = (
        int(np.count_nonzero(line & within(other, reach))) / count
        for line, other, count in zip(lines, lines[::-1], counts, strict=True)
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _contour(inside: Truths) -> Truths:
    """(h, w) pixels that differ from the one to their right, below, or both; the image's edge is no contour."""
    padded = np.pad(inside, ((0, 1), (0, 1)), mode="edge")
    differs: Truths = (inside != padded[:-1, 1:]) | (inside != padded[1:, :-1]) | (inside != padded[1:, 1:])
    return differs


@dataclass(frozen=True)
class FrameStatistics:
    """One measure of one object over its frames."""

    mean: float
    recall: float
    """Fraction of the frames over 0.5."""
    decay: float
    """Mean of the first quarter of the frames less that of the last; quarters share the frames between them."""
    flicker: float
    """Mean change from frame to frame; 0 of a single frame."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "FrameStatistics":
        """Of the values of at least one frame, in order. Raises `ShapeError`."""
        if not len(values):
            raise ShapeError("expected the values of at least one frame")
        each = np.asarray(values, np.float64)
        ends = np.round(np.linspace(1, len(each), _QUARTERS + 1) + 1e-10).astype(int) - 1
        first, last = each[: ends[1] + 1], each[ends[-2] :]
        change = np.abs(np.diff(each)).mean() if len(each) > 1 else 0.0
        return cls(float(each.mean()), float((each > 0.5).mean()), float(first.mean() - last.mean()), float(change))


def _check(found: Truths, true: Truths, ignored: Truths | None) -> None:
    shapes = {mask.shape for mask in (found, true, ignored) if mask is not None}
    kinds = {mask.dtype.kind for mask in (found, true, ignored) if mask is not None}
    if len(shapes) != 1 or kinds != {"b"}:
        raise ShapeError(f"expected masks of truth values and one size (h, w), got {shapes} of kinds {kinds}")
