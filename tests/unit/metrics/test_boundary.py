"""The boundary F-score in ignored bands, at edges, and for several classes."""

import numpy as np

from kshot.metrics import boundary_f


def square(x: int, band: int = 0) -> np.ndarray:
    mask = np.zeros((300, 400), np.uint8)
    mask[100 - band : 200 + band, x - band : x + 100 + band] = 255 if band else 1
    mask[100 + band : 200 - band, x + band : x + 100 - band] = 1
    return mask


def test_the_contour_lies_in_the_middle_of_the_ignored_band():
    # The tolerance is 0.75 % of 500 pixels: 3.75.
    assert boundary_f(square(100), square(100, band=3), 1)[0] == 1.0
    assert boundary_f(square(103), square(100, band=3), 1)[0] == 1.0
    assert boundary_f(square(110), square(100, band=3), 1)[0] < 0.6


def test_contours_deep_in_the_ignored_part_count_for_nothing():
    truth = square(100)
    truth[:, 250:] = 255
    prediction = square(100)
    prediction[100:200, 300:390] = 1
    assert boundary_f(prediction, truth, 1)[0] == 1.0
    assert np.isnan(boundary_f(prediction, np.full_like(truth, 255), 1)[0])


def test_a_contour_on_one_side_only_is_0_and_on_none_is_nan():
    empty, full = np.zeros((30, 40), np.uint8), np.ones((30, 40), np.uint8)
    small = empty.copy()
    small[10:20, 10:20] = 1
    assert boundary_f(small, empty, 1).tolist() == boundary_f(empty, small, 1).tolist() == [0.0]
    assert np.isnan(boundary_f(full, full, 2)).all()  # the image's edge is no contour


def test_each_class_has_its_own_contour():
    truth = np.zeros((30, 60), np.uint8)
    truth[5:25, 5:25], truth[5:25, 35:55] = 1, 2
    found = boundary_f(np.where(truth == 2, 0, truth), truth, 3)
    assert found[:2].tolist() == [1.0, 0.0] and np.isnan(found[2])
