"""What may be counted, and how runs are put together."""

import numpy as np
import pytest
from PIL import Image

from kshot.errors import MaskError, ShapeError
from kshot.metrics import CalibrationCounts, EpisodeCounts, IoUCounts, boundary_f, check_label_map
from tests.support.foreground_counts import foreground_counts

IMAGE = np.zeros((4, 6, 3), np.uint8)
MAP = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        (IMAGE, ShapeError, r"an image of shape \(4, 6, 3\) was given instead of a label map"),
        (IMAGE.transpose(2, 0, 1), ShapeError, r"an image of shape \(3, 4, 6\) was given instead"),
        (np.zeros((4, 6, 4), np.float32), ShapeError, "an image of shape"),
        (np.zeros((2, 4, 6), np.uint8), ShapeError, r"expected a label map of shape \(h, w\), got \(2, 4, 6\)"),
        (np.zeros((0, 6), np.uint8), ShapeError, "expected a label map"),
        (MAP.astype(np.float32), ShapeError, "expected integer labels, got float32"),
        (MAP.astype(bool), ShapeError, "expected integer labels, got bool"),
        (MAP.tolist(), ShapeError, "expected a label map as an array .*, got list"),
        (Image.new("L", (6, 4)), ShapeError, "got Image"),
        (MAP + np.uint8(7), MaskError, r"expected labels in 0\.\.2 .*got 7"),
        (MAP.astype(np.int64) - 1, MaskError, "got -1; was a grey image"),
        (
            np.arange(24, dtype=np.uint8).reshape(4, 6) * 10,
            MaskError,
            r"got 10, 20, 30, 40, 50, 60, 70, 80, \.\.\.; was",
        ),
    ],
)
def test_law_5_only_a_label_map_passes(wrong, error, told):
    for prediction, truth in ((wrong, MAP), (MAP, wrong)):
        with pytest.raises(error, match=told if prediction is MAP else told.replace(" .*got", ".*got")):
            IoUCounts.from_masks(prediction, truth, 2)
    with pytest.raises(error):
        boundary_f(MAP, wrong, 2)


def test_law_5_the_size_is_the_truths():
    with pytest.raises(ShapeError, match=r"the prediction: expected the size of the truth, \(4, 6\), got \(6, 4\)"):
        IoUCounts.from_masks(MAP.T, MAP, 2)


def test_law_5_ignore_is_for_the_truth_alone():
    ignored = np.full_like(MAP, 255)
    assert IoUCounts.from_masks(MAP, ignored, 2).truth.sum() == 0
    with pytest.raises(MaskError, match=r"the prediction: expected labels in 0\.\.2, got 255"):
        IoUCounts.from_masks(ignored, MAP, 2)
    assert check_label_map(MAP, 0, "x") is MAP


def test_counts_of_other_shapes_do_not_mix():
    with pytest.raises(ShapeError, match="do not add"):
        IoUCounts.zeros(1) + IoUCounts.zeros(2)
    with pytest.raises(ShapeError, match="three integer arrays"):
        IoUCounts(np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ShapeError, match="three integer arrays"):
        IoUCounts(*np.zeros((3, 2)))
    with pytest.raises(ShapeError, match=r"\(\.\.\., 3, N\+1\)"):
        IoUCounts.from_array(np.zeros((2, 2), np.int64))
    assert IoUCounts.zeros(1) != "nothing"
    with pytest.raises(ShapeError, match="of 15 and 10 bins do not add"):
        CalibrationCounts.zeros() + CalibrationCounts.zeros(10)
    with pytest.raises(ShapeError):
        CalibrationCounts.from_array(np.zeros((2, 5), np.int64))
    with pytest.raises(ShapeError):
        CalibrationCounts(np.zeros(3, np.int64), np.zeros(4, np.int64), np.zeros(3, np.int64))


def test_runs_are_put_together_with_care():
    run = foreground_counts([1, 2], [3, 4])
    assert EpisodeCounts.columns(1)[:4] == ("episode", "class_1", "intersection_0", "intersection_1")
    backwards = EpisodeCounts.from_table(run.to_table()[::-1], 1)
    assert np.array_equal(backwards.to_table(), run.to_table())
    with pytest.raises(ShapeError, match="episode 0 was counted twice with different results"):
        EpisodeCounts.merge([run, foreground_counts([2], [3])])
    with pytest.raises(ShapeError, match=r"parts of one N, got N = \[1, 2\]"):
        EpisodeCounts.merge([run, EpisodeCounts.of(5, (1, 2), IoUCounts.zeros(2))])
    with pytest.raises(ShapeError, match="parts of one N"):
        EpisodeCounts.merge([])
    with pytest.raises(ShapeError, match="8 columns for 1-way"):
        EpisodeCounts.from_table(np.zeros((2, 9)), 1)
    with pytest.raises(ShapeError, match=r"\(E,\) numbers"):
        EpisodeCounts(run.index[:1], run.classes, run.counts)


def test_the_same_episodes_are_known_by_their_truth():
    run = foreground_counts([1, 2], [3, 4])
    assert run.same_episodes(foreground_counts([0, 0], [3, 4])) and not run.same_episodes(
        foreground_counts([1, 2], [3, 5])
    )
    assert not run.same_episodes(foreground_counts([1, 2], [3, 4], classes=[1, 2]))
