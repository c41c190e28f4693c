"""Boundary F-score: do the contours agree, within a tolerance?

Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013: precision is the fraction
of predicted contour pixels within a distance of the true contour, recall the converse; the distance is 0.75 % of
the image diagonal. (DAVIS 2016 uses 0.8 % and dilation, which is nearly the same.)
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.metrics.counts import IGNORE, check_label_map

Truths = NDArray[np.bool_]


def boundary_f(
    prediction: Any, truth: Any, n_classes: int, *, tolerance: float = 0.0075, ignore: int = IGNORE
) -> NDArray[np.float64]:
    """(N,) F-scores of the classes 1..N in one image; nan where neither map has a contour of the class.

    prediction, truth: as in `IoUCounts.from_masks`. tolerance: fraction of the diagonal, at least one pixel.
    Ignored pixels take the label of the nearest labelled pixel, because PASCAL's ignored band lies on the very
    contour; contours farther than the tolerance from any labelled pixel are left out. The image's edge is no
    contour. Raises `ShapeError` and `MaskError`.
    """
    check_label_map(truth, n_classes, "the truth", ignore=ignore)
    check_label_map(prediction, n_classes, "the prediction", size_hw=truth.shape)
    reach = max(1.0, tolerance * float(np.hypot(*truth.shape)))
    filled, counted = _fill(truth, ignore, reach)
    scores = [_f_score(prediction == n, filled == n, counted, reach) for n in range(1, n_classes + 1)]
    return np.array(scores, np.float64)


def contour(inside: Truths) -> Truths:
    """(h, w) the pixels of a region that have a 4-neighbour outside it."""
    padded = np.pad(inside, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    found: Truths = inside & ~core
    return found


def _fill(truth: NDArray[Any], ignore: int, reach: float) -> tuple[NDArray[Any], Truths]:
    """The truth with ignored pixels near labelled ones filled, and (h, w) whether a labelled pixel is within reach."""
    void = truth == ignore
    if not void.any() or void.all():
        return truth, ~void
    # One pixel farther than what counts, so that a contour at the very end of the reach has its neighbour.
    border = int(reach + 1)
    width = truth.shape[1] + 2 * border
    filled = np.pad(truth, border, constant_values=ignore)
    given, flat = filled.ravel().copy(), filled.ravel()
    gaps = np.flatnonzero(np.pad(void & within(~void, reach + 1), border))
    for dy, dx in _disc(reach + 1):  # the nearest first, so the first labelled pixel met is the nearest one
        labels = given[gaps + (dy * width + dx)]
        met = labels != ignore
        flat[gaps[met]] = labels[met]
        gaps = gaps[~met]
    inner = slice(border, -border)
    return filled[inner, inner], within(~void, reach)


def _f_score(predicted: Truths, true: Truths, counted: Truths, reach: float) -> float:
    rows, columns = _box(predicted | true)
    found, wanted = contour(predicted)[rows, columns], contour(true)[rows, columns]
    found_here, wanted_here = found & counted[rows, columns], wanted & counted[rows, columns]
    if not found_here.any() and not wanted_here.any():
        return float("nan")
    precision, recall = _near(found_here, wanted, reach), _near(wanted_here, found, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(of: Truths, to: Truths, reach: float) -> float:
    """Fraction of the pixels `of` that lie within reach of a pixel in `to`; 0 when either is empty."""
    if not of.any() or not to.any():
        return 0.0
    return int(np.count_nonzero(of & within(to, reach))) / int(np.count_nonzero(of))


def within(points: Truths, reach: float) -> Truths:
    """(h, w) whether a true pixel of `points` lies within `reach` pixels: dilation by a disc, exactly.

    The disc is a stack of rows: each is a horizontal dilation, which grows from row to row. For the few pixels of
    reach that occur here that is a hundred times faster than a distance transform.
    """
    out = points.copy()
    rows, wide = points.copy(), 0
    for dy in range(int(reach), -1, -1):
        while np.hypot(dy, wide + 1) <= reach:
            wide += 1
            rows[:, wide:] |= points[:, :-wide]
            rows[:, :-wide] |= points[:, wide:]
        if dy < len(rows):
            out[dy:] |= rows[: len(rows) - dy]
            out[: len(rows) - dy] |= rows[dy:]
    return out


@lru_cache(maxsize=64)
def _disc(reach: float) -> tuple[tuple[int, int], ...]:
    """Steps (dy, dx) of at most `reach` pixels, the shortest first."""
    span = range(-int(reach), int(reach) + 1)
    steps = [(dy, dx) for dy in span for dx in span if 0 < np.hypot(dy, dx) <= reach]
    return tuple(sorted(steps, key=lambda step: (step[0] ** 2 + step[1] ** 2, step)))


def _box(points: Truths) -> tuple[slice, slice]:
    """The smallest box around the true pixels; an empty one when there are none."""
    sides = (np.flatnonzero(points.any(axis)) for axis in (1, 0))
    rows, columns = (slice(side[0], side[-1] + 1) if len(side) else slice(0) for side in sides)
    return rows, columns
