"""Boundary F-score: do the contours agree, within a tolerance?

Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013: precision is the share
of predicted contour pixels within a distance of the true contour, recall the converse; the distance is 0.75 % of
the image diagonal. (DAVIS 2016 uses 0.8 % and dilation, which is nearly the same.)
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.metrics.counts import IGNORE, check_label_map

Truths = NDArray[np.bool_]


def boundary_f(
    prediction: Any, truth: Any, n_classes: int, *, tolerance: float = 0.0075, ignore: int = IGNORE
) -> NDArray[np.float64]:
    """(N,) F-scores of the classes 1..N in one image; nan where neither map has a contour of the class.

    prediction, truth: as in `IoUCounts.from_masks`. tolerance: share of the diagonal, at least one pixel.
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
    rim, gaps = np.argwhere(contour(~void)), np.argwhere(void)
    # One pixel farther than what counts, so that a contour at the very end of the reach has its neighbour.
    distance, nearest = _nearest(gaps, rim, reach + 1)
    known = np.isfinite(distance)
    filled, counted = truth.copy(), ~void
    filled[tuple(gaps[known].T)] = truth[tuple(rim[nearest[known]].T)]
    counted[tuple(gaps[distance <= reach].T)] = True
    return filled, counted


def _f_score(predicted: Truths, true: Truths, counted: Truths, reach: float) -> float:
    found, wanted = contour(predicted), contour(true)
    found_here, wanted_here = found & counted, wanted & counted
    if not found_here.any() and not wanted_here.any():
        return float("nan")
    precision, recall = _near(found_here, wanted, reach), _near(wanted_here, found, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(of: Truths, to: Truths, reach: float) -> float:
    """Share of the pixels `of` that lie within reach of a pixel in `to`; 0 when either is empty."""
    if not of.any() or not to.any():
        return 0.0
    return float((_nearest(np.argwhere(of), np.argwhere(to), reach)[0] <= reach).mean())


def _nearest(points: NDArray[Any], others: NDArray[Any], reach: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distance to the nearest of `others` (inf beyond reach) and its number, for each point."""
    # Imported here because only this score pays for it. A contour has few pixels: a tree over them is
    # twenty times faster than a distance transform of the image, and as exact.
    from scipy.spatial import KDTree

    distance, nearest = KDTree(others).query(points, distance_upper_bound=np.nextafter(reach, np.inf))
    return distance, nearest
