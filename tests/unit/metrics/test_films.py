"""J, F and their statistics: counted by hand, and what the DAVIS 2017 code says of drawn masks."""

import numpy as np
import pytest

from kshot.errors import ShapeError
from kshot.metrics.films import FrameStatistics, contour_accuracy, region_similarity

Y, X = np.mgrid[:100, :160]


def disc(x: float, y: float, radius: float) -> np.ndarray:
    return (X - x) ** 2 + (Y - y) ** 2 < radius**2


# From vos-benchmark 0.1.0, which carries the functions of the DAVIS 2017 evaluation code, tolerance 2 pixels.
@pytest.mark.parametrize(
    ("shift", "j", "f"),
    [
        (0, 1.0, 1.0),
        (2, 0.9098684210526315, 0.7542130951284649),
        (4, 0.8296318831761484, 0.5491803278688525),
        (8, 0.695801425930816, 0.22637301366044046),
    ],
)
def test_a_moved_disc_has_the_figures_of_davis(shift: int, j: float, f: float) -> None:
    found, true = disc(60 + shift, 50, 30 + shift / 2), disc(60, 50, 30)
    assert region_similarity(found, true) == pytest.approx(j, abs=1e-12)
    assert contour_accuracy(found, true) == pytest.approx(f, abs=1e-12)


def test_a_square_by_hand() -> None:
    # 0.8 % of the diagonal of 100 x 160 is 1.5 pixels, so 2.
    true, found = np.zeros((100, 160), np.bool_), np.zeros((100, 160), np.bool_)
    true[10:14, 10:14] = True
    found[10:14, 10:15] = True
    assert region_similarity(found, true) == 16 / 20
    assert contour_accuracy(found, true) == 1.0
    # Contours lie half a pixel towards the origin: the true one is the rim of 9..13 x 9..13, the other of 9..13 x
    # 9..17, 24 pixels, of which those of columns 16 and 17, 2 + 5, are farther than 2 from the former.
    found[10:14, 10:18] = True
    precision = (24 - 7) / 24
    assert contour_accuracy(found, true) == pytest.approx(2 * precision / (precision + 1))


def test_nothing_is_right_where_nothing_is_and_wrong_elsewhere() -> None:
    nothing, something = np.zeros((9, 9), np.bool_), np.eye(9, dtype=np.bool_)
    for measure in (region_similarity, contour_accuracy):
        assert measure(nothing, nothing) == 1.0
        assert measure(something, nothing) == measure(nothing, something) == 0.0
    assert contour_accuracy(~nothing, ~nothing) == 1.0  # the image's edge is no contour


def test_what_is_ignored_counts_in_neither() -> None:
    true, ignored = disc(60, 50, 20), disc(80, 50, 15)
    found = true | ignored
    assert region_similarity(found, true) < 0.8 and contour_accuracy(found, true) < 0.9
    assert region_similarity(found, true, ignored) == contour_accuracy(found, true, ignored) == 1.0


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="one size"):
        region_similarity(np.zeros((3, 3), np.bool_), np.zeros((3, 4), np.bool_))
    with pytest.raises(ShapeError, match="truth values"):
        contour_accuracy(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.bool_))


def test_statistics_by_hand() -> None:
    found = FrameStatistics.of([0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1, 0.1])
    # The quarters of eight frames meet at 1 + 7 k / 4, rounded: 1, 3, 4, 6, 8. The first is 1..3, the last 6..8.
    assert found.mean == pytest.approx(0.45) and found.recall == 3 / 8
    assert found.decay == pytest.approx((0.9 + 0.8 + 0.7) / 3 - (0.2 + 0.1 + 0.1) / 3)
    assert found.flicker == pytest.approx(0.8 / 7)
    assert FrameStatistics.of([0.6]) == FrameStatistics(0.6, 1.0, 0.0, 0.0)
    with pytest.raises(ShapeError, match="at least one frame"):
        FrameStatistics.of([])
