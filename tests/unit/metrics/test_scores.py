"""Scores out of counts."""

import numpy as np
import pytest

from kshot.errors import ShapeError
from kshot.metrics import Score, mean_per_class, presence_accuracy
from tests.support.foreground_counts import foreground_counts


def test_presence_can_come_from_elsewhere():
    run = foreground_counts([1, 0], [3, 4])
    assert presence_accuracy(run).value == 0.5
    assert presence_accuracy(run, np.array([[True], [True]])).value == 1.0
    with pytest.raises(ShapeError, match="expected presence as truth values"):
        presence_accuracy(run, np.array([[1], [1]]))


def test_means_over_episodes_leave_nan_out():
    run = foreground_counts([1, 1, 1], [1, 1, 1], classes=[4, 4, 9])
    score = mean_per_class("boundary F", run, np.array([[0.5], [np.nan], [1.0]]))
    assert score.parts == {4: 0.5, 9: 1.0} and score.value == 0.75
    assert mean_per_class("boundary F", run, np.full((3, 1), np.nan)).left_out == (4, 9)
    with pytest.raises(ShapeError, match="expected values of shape"):
        mean_per_class("boundary F", run, np.zeros(3))
    assert mean_per_class("x", run, np.zeros((3, 1)), classes=()).parts == {}


def test_scores_check_their_parts():
    with pytest.raises(ShapeError, match="expected parts of shape"):
        Score("x", (1, 2), np.arange(3), np.zeros((3, 1)), np.zeros((3, 1)))
