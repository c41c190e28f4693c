"""What is a score, and what perfect scores give."""

import numpy as np
import pytest

from kshot.errors import MaskError, ShapeError
from kshot.metrics import CalibrationCounts

MAP = np.zeros((4, 6), np.uint8)


def test_calibration_refuses_what_is_no_score():
    scores = np.full((2, 4, 6), 0.5, np.float32)
    with pytest.raises(ShapeError, match=r"scores \(N\+1, h, w\) as floats"):
        CalibrationCounts.from_scores(MAP, MAP)
    with pytest.raises(ShapeError, match=r"expected scores in 0\.\.1"):
        CalibrationCounts.from_scores(scores * 3, MAP)
    with pytest.raises(ShapeError, match=r"expected scores in 0\.\.1"):
        CalibrationCounts.from_scores(scores * np.float32("nan"), MAP)
    with pytest.raises(MaskError):
        CalibrationCounts.from_scores(scores, MAP + 2)
    with pytest.raises(ShapeError):
        CalibrationCounts.from_scores(scores, MAP.T)


def test_calibration_of_perfect_scores_and_of_none():
    scores = np.stack([np.ones((4, 6)), np.zeros((4, 6))])
    sure = CalibrationCounts.from_scores(scores, MAP)
    assert sure.error == 0 and sure.accuracy[-1] == sure.mean_confidence[-1] == 1
    assert CalibrationCounts.from_scores(scores, MAP + 1).error == 1
    assert np.isnan(CalibrationCounts.zeros().error) and np.isnan(CalibrationCounts.zeros().accuracy).all()
    assert sure != 1
