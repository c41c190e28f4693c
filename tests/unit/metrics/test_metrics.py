import numpy as np
import pytest
from PIL import Image

from kshot.errors import MaskError, SettingError, ShapeError
from kshot.metrics import (
    CalibrationCounts,
    EpisodeCounts,
    IoUCounts,
    Score,
    bootstrap,
    boundary_f,
    check_label_map,
    fss_miou,
    intervals,
    mean_per_class,
    paired_bootstrap,
    presence_accuracy,
)

PICTURE = np.zeros((4, 6, 3), np.uint8)
MAP = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        (PICTURE, ShapeError, r"an image of shape \(4, 6, 3\) was given instead of a label map"),
        (PICTURE.transpose(2, 0, 1), ShapeError, r"an image of shape \(3, 4, 6\) was given instead"),
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


def rows(intersection, union, classes=None) -> EpisodeCounts:
    """1-way episodes of given I and U of the foreground."""
    n = len(intersection)
    table = np.zeros((n, 8), np.int64)
    table[:, 0], table[:, 1] = np.arange(n), classes if classes is not None else 1
    table[:, 3], table[:, 5], table[:, 7] = intersection, intersection, union
    return EpisodeCounts.from_table(table, 1)


def test_runs_are_put_together_with_care():
    run = rows([1, 2], [3, 4])
    assert EpisodeCounts.columns(1)[:4] == ("episode", "class_1", "intersection_0", "intersection_1")
    backwards = EpisodeCounts.from_table(run.to_table()[::-1], 1)
    assert np.array_equal(backwards.to_table(), run.to_table())
    with pytest.raises(ShapeError, match="episode 0 was counted twice with different results"):
        EpisodeCounts.merge([run, rows([2], [3])])
    with pytest.raises(ShapeError, match=r"parts of one N, got N = \[1, 2\]"):
        EpisodeCounts.merge([run, EpisodeCounts.of(5, (1, 2), IoUCounts.zeros(2))])
    with pytest.raises(ShapeError, match="parts of one N"):
        EpisodeCounts.merge([])
    with pytest.raises(ShapeError, match="8 columns for 1-way"):
        EpisodeCounts.from_table(np.zeros((2, 9)), 1)
    with pytest.raises(ShapeError, match=r"\(E,\) numbers"):
        EpisodeCounts(run.index[:1], run.classes, run.counts)


def test_the_same_episodes_are_known_by_their_truth():
    run = rows([1, 2], [3, 4])
    assert run.same_episodes(rows([0, 0], [3, 4])) and not run.same_episodes(rows([1, 2], [3, 5]))
    assert not run.same_episodes(rows([1, 2], [3, 4], classes=[1, 2]))


def test_presence_can_come_from_elsewhere():
    run = rows([1, 0], [3, 4])
    assert presence_accuracy(run).value == 0.5
    assert presence_accuracy(run, np.array([[True], [True]])).value == 1.0
    with pytest.raises(ShapeError, match="expected presence as truth values"):
        presence_accuracy(run, np.array([[1], [1]]))


def test_means_over_episodes_leave_nan_out():
    run = rows([1, 1, 1], [1, 1, 1], classes=[4, 4, 9])
    score = mean_per_class("boundary F", run, np.array([[0.5], [np.nan], [1.0]]))
    assert score.parts == {4: 0.5, 9: 1.0} and score.value == 0.75
    assert mean_per_class("boundary F", run, np.full((3, 1), np.nan)).left_out == (4, 9)
    with pytest.raises(ShapeError, match="expected values of shape"):
        mean_per_class("boundary F", run, np.zeros(3))
    assert mean_per_class("x", run, np.zeros((3, 1)), classes=()).parts == {}


def test_scores_check_their_parts():
    with pytest.raises(ShapeError, match="expected parts of shape"):
        Score("x", (1, 2), np.arange(3), np.zeros((3, 1)), np.zeros((3, 1)))


def test_the_bootstrap_is_the_loop_it_stands_for(monkeypatch):
    run = rows(np.arange(7), np.arange(7) + 5, classes=[1, 1, 1, 1, 2, 2, 3])
    score = fss_miou(run)
    drawn = np.random.default_rng(3).integers(7, size=(50, 7))
    values = []
    for episodes in drawn:
        parts = score.numerator[episodes].sum(0), score.denominator[episodes].sum(0)
        values.append(np.mean([i / u for i, u in zip(*parts, strict=True) if u]))
    low, high = np.quantile(values, [0.05, 0.95])
    whole = bootstrap(score, level=0.9, samples=50, seed=3)
    assert (whole.low, whole.high) == pytest.approx((low, high)) and whole.value == score.value
    monkeypatch.setattr(intervals, "_BLOCK", 30)  # blocks bound the memory and change nothing
    assert bootstrap(score, level=0.9, samples=50, seed=3) == whole


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        found = bootstrap(fss_miou(rows(rng.binomial(100, 0.6, 60), [100] * 60)), samples=200, seed=rng)
        hits += found.low <= 0.6 <= found.high
    assert 86 <= hits <= 100


def test_pairing_sees_a_small_difference_that_lies_within_both_intervals():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 80, 200)
    one, two = fss_miou(rows(base + 3, [100] * 200)), fss_miou(rows(base, [100] * 200))
    apart = paired_bootstrap(one, two, samples=300)
    assert apart.value == pytest.approx(0.03) and apart.low == pytest.approx(0.03) == apart.high
    assert bootstrap(one).low < two.value


def test_pairing_needs_the_same_episodes_and_classes():
    one = fss_miou(rows([1, 2], [3, 4]))
    with pytest.raises(SettingError, match="they share 2 of 2 and 3"):
        paired_bootstrap(one, fss_miou(rows([1, 2, 3], [3, 4, 5])))
    with pytest.raises(SettingError, match="the same classes"):
        paired_bootstrap(one, fss_miou(rows([1, 2], [3, 4], classes=[1, 2])))


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"level": 0}, {"samples": 0}])
def test_interval_settings(wrong):
    with pytest.raises(SettingError, match="a level in"):
        bootstrap(fss_miou(rows([1], [2])), **wrong)


def test_nothing_to_resample_is_nan():
    empty = fss_miou(EpisodeCounts.from_table(np.zeros((0, 8)), 1), classes=(1,))
    found = bootstrap(empty, samples=5)
    assert np.isnan([empty.value, found.value, found.low, found.high]).all()


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
