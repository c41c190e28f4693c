"""Figures that were counted by hand, and foreign oracles."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from kshot.metrics import (
    CalibrationCounts,
    EpisodeCounts,
    IoUCounts,
    boundary_f,
    class_presence,
    fb_iou,
    fss_miou,
    panet_miou,
    presence_accuracy,
    size_table,
    strict_miou,
)


def grid(text: str) -> np.ndarray:
    """A label map in digits; `x` is 255."""
    rows = [[255 if c == "x" else int(c) for c in row] for row in text.split()]
    return np.array(rows, np.uint8)


def run(*episodes: tuple[tuple[int, ...], str, str]) -> EpisodeCounts:
    """Episodes as (class ids, prediction, truth)."""
    return EpisodeCounts.merge(
        EpisodeCounts.of(i, classes, IoUCounts.from_masks(grid(p), grid(t), len(classes)))
        for i, (classes, p, t) in enumerate(episodes)
    )


def test_1_of_1_and_0_of_99_give_a_hundredth():
    hit = np.zeros((10, 10), np.uint8)
    hit[0, 0] = 1
    miss, wrong = np.ones((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    miss[0, 0] = 0
    parts = [IoUCounts.from_masks(hit, hit, 1), IoUCounts.from_masks(wrong, miss, 1)]
    assert [int(p.intersection[1]) for p in parts] == [1, 0] and [int(p.union[1]) for p in parts] == [1, 99]
    rows = EpisodeCounts.merge(EpisodeCounts.of(i, (3,), p) for i, p in enumerate(parts))
    assert fss_miou(rows).value == 0.01
    assert np.mean([p.iou()[1] for p in parts]) == 0.5  # the mean over images, which this is not


def test_the_same_two_episodes_as_two_classes_give_a_half():
    rows = EpisodeCounts.from_table(np.array([[0, 1, 0, 1, 0, 1, 0, 1], [1, 2, 0, 0, 0, 0, 0, 99]]), way=1)
    assert fss_miou(rows).parts == {1: 1.0, 2: 0.0} and fss_miou(rows).value == 0.5


def test_miou_and_fb_iou_of_a_small_picture():
    # class 1: I 2, U 4.  background: I 4, U 6.  8 pixels.
    rows = run(((5,), "1110 0000", "1101 0000"))
    assert rows.counts.intersection.tolist() == [[4, 2]] and rows.counts.union.tolist() == [[6, 4]]
    assert fss_miou(rows).parts == {5: 2 / 4}
    assert fb_iou(rows).parts == {"background": 4 / 6, "foreground": 2 / 4}
    assert fb_iou(rows).value == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert strict_miou(rows).parts == {0: 4 / 6, 5: 2 / 4}


def test_ignored_pixels_are_in_nothing():
    # The picture above and a row of ignored pixels under it.
    rows = run(((5,), "11100000 11000000", "11010000 xxxxxxxx"))
    assert rows.counts.intersection.tolist() == [[4, 2]] and rows.counts.union.tolist() == [[6, 4]]
    assert rows.counts.truth.sum() == rows.counts.predicted.sum() == 8


def test_all_ignored_is_an_episode_of_nothing():
    rows = run(((5,), "11 00", "xx xx"))
    assert fss_miou(rows).left_out == (5,) and np.isnan(fss_miou(rows).value) and np.isnan(fb_iou(rows).value)


def test_an_absent_class_that_is_found_costs_in_the_strict_score_and_not_in_panets():
    # Way 2 (class 8) is absent; 2 of 8 pixels are false alarms of it. Way 1 (class 4): I 2, U 2.
    rows = run(((4, 8), "1122 0000", "1100 0000"))
    assert strict_miou(rows).parts == {0: 4 / 6, 4: 1.0, 8: 0.0}
    assert strict_miou(rows).value == pytest.approx((4 / 6 + 1 + 0) / 3)
    assert fss_miou(rows).value == 0.5
    assert panet_miou(rows).parts[4] == 1.0 and panet_miou(rows).left_out == (8,)
    assert panet_miou(rows).value == 1.0
    assert presence_accuracy(rows).value == 0.0
    assert class_presence(rows).parts == {4: 1.0, 8: 0.0}


def test_an_absent_class_that_stays_absent_is_left_out_and_said():
    rows = run(((4, 8), "1100 0000", "1100 0000"))
    assert strict_miou(rows).left_out == (8,) and strict_miou(rows).value == 1.0
    assert np.isnan(strict_miou(rows).parts[8])
    assert presence_accuracy(rows).value == 1.0


def test_panets_score_counts_a_class_only_where_it_is():
    # Class 4: present in the first (I 1, U 2), absent in the second, where it is predicted on 3 pixels.
    rows = run(((4, 8), "1002", "1102"), ((8, 4), "1222", "1000"))
    assert panet_miou(rows).parts == {4: 1 / 2, 8: 2 / 2}
    assert strict_miou(rows).parts == {0: 1 / 5, 4: 1 / 5, 8: 2 / 2}


def test_a_fold_class_that_never_came_is_nan_and_counted():
    score = fss_miou(run(((4,), "11", "11")), classes=(4, 5, 6))
    assert score.value == 1.0 and score.left_out == (5, 6)


def test_ways_are_summed_by_class_not_by_place():
    rows = run(((4, 8), "12", "12"), ((8, 4), "12", "21"))
    assert fss_miou(rows).parts == {4: 1 / 3, 8: 1 / 3}


def test_fb_iou_of_two_ways_takes_any_class_as_foreground():
    # fg: both non-zero 3, either 4.  bg: both zero 4, either 5.
    rows = run(((4, 8), "1122 0000", "2210 0000"))
    assert fb_iou(rows).parts == {"background": 4 / 5, "foreground": 3 / 4}


def test_presence_over_three_episodes():
    rows = run(((4,), "10", "10"), ((4,), "00", "10"), ((9,), "00", "00"))
    assert presence_accuracy(rows).value == pytest.approx(2 / 3)
    assert class_presence(rows).parts == {4: 1 / 2, 9: 1.0}


def test_sizes_are_shares_of_the_labelled_pixels():
    # 2 of 8 labelled pixels (25 %), found half; 8 of 8 (100 %), found whole; an absent one is no object.
    rows = run(((1,), "1000 0000 1111", "1100 0000 xxxx"), ((1,), "1111 1111", "1111 1111"), ((1,), "10", "00"))
    table = size_table(rows, edges=(0, 0.2, 0.25, 1))
    assert [(b.objects, b.iou) for b in table[1:]] == [(1, 1 / 2), (1, 1.0)]
    assert table[0].objects == 0 and np.isnan(table[0].iou) and np.isnan(table[0].mean_iou)


def test_calibration_of_four_pixels():
    # Scores 0.9, 0.9 (one right), 0.6 (right), 0.6 (ignored): 2 bins of ten hold pixels.
    scores = np.array([[[0.9, 0.1], [0.6, 0.6]], [[0.1, 0.9], [0.4, 0.4]]], np.float32)
    counts = CalibrationCounts.from_scores(scores, np.array([[0, 0], [0, 255]]), bins=10)
    assert counts.pixels.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 2, 0]
    assert counts.right.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 1, 0]
    assert counts.error == pytest.approx((abs(1 - 0.6) + abs(1 - 1.8)) / 3, abs=1e-4)


def test_contours_of_a_shifted_square():
    truth, near, far = (np.zeros((80, 100), np.uint8) for _ in range(3))
    truth[20:40, 20:40] = near[20:40, 21:41] = far[20:40, 60:80] = 1
    # The diagonal is 128 pixels and 0.75 % of it 0.96, so at least one pixel is allowed.
    assert boundary_f(truth, truth, 1).tolist() == [1.0]
    assert boundary_f(near, truth, 1).tolist() == [1.0]
    assert boundary_f(far, truth, 1).tolist() == [0.0]
    # Three columns off: of its 76 contour pixels those in columns 23..40 of the upper and lower edge (18 each) are
    # within a pixel of the true contour, and in column 23 the two next to the edges: 38. The converse is the same.
    off = np.zeros_like(truth)
    off[20:40, 23:43] = 1
    assert boundary_f(off, truth, 1)[0] == 38 / 76


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    for n_classes in (1, 3, 20, 80, 254):
        truth = rng.integers(0, n_classes + 1, (37, 53)).astype(np.uint8)
        prediction = rng.integers(0, n_classes + 1, (37, 53)).astype(np.uint8)
        ignored = (rng.random((37, 53)) < 0.2) | (truth == 255)
        counts = IoUCounts.from_masks(prediction, np.where(ignored, 255, truth).astype(np.uint8), n_classes)
        table = confusion_matrix(truth[~ignored], prediction[~ignored], labels=range(n_classes + 1))
        assert np.array_equal(counts.intersection, np.diagonal(table))
        assert np.array_equal(counts.union, table.sum(0) + table.sum(1) - np.diagonal(table))
        assert counts.truth.sum() == (~ignored).sum()


def test_against_torchmetrics_accumulated():
    torch, torchmetrics = pytest.importorskip("torch"), pytest.importorskip("torchmetrics")
    rng = np.random.default_rng(1)
    each = torchmetrics.JaccardIndex(task="multiclass", num_classes=4, ignore_index=255, average="none")
    binary = torchmetrics.JaccardIndex(task="multiclass", num_classes=2, ignore_index=255, average="macro")
    parts = []
    for i in range(12):
        truth = rng.choice([0, 0, 1, 2, 3, 255], (20 + i, 31)).astype(np.uint8)
        prediction = np.where(rng.random(truth.shape) < 0.5, truth % 4, rng.integers(0, 4, truth.shape)).astype(
            np.uint8
        )
        each.update(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long())
        two = np.where(truth == 255, 255, truth > 0)
        binary.update(torch.from_numpy(prediction > 0).long(), torch.from_numpy(two).long())
        parts.append(EpisodeCounts.of(i, (11, 12, 13), IoUCounts.from_masks(prediction, truth, 3)))
    rows = EpisodeCounts.merge(parts)
    assert np.allclose(list(strict_miou(rows).parts.values()), each.compute().numpy(), atol=1e-6)
    assert fb_iou(rows).value == pytest.approx(float(binary.compute()), abs=1e-6)
