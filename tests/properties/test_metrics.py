"""Law 3: counts add exactly, however a run is cut; and what must hold of every score."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from kshot.metrics import (
    CalibrationCounts,
    EpisodeCounts,
    IoUCounts,
    bootstrap,
    boundary_f,
    fb_iou,
    fss_miou,
    paired_bootstrap,
    panet_miou,
    presence_accuracy,
    strict_miou,
)
from kshot.metrics.boundary import contour

FEW = settings(max_examples=40, deadline=None)
SIDES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def maps(draw, n_classes=3):
    shape = draw(SIDES)
    truth = draw(arrays(np.uint8, shape, elements=st.sampled_from([*range(n_classes + 1), 255])))
    return draw(arrays(np.uint8, shape, elements=st.integers(0, n_classes))), truth


@st.composite
def runs(draw, way=2, least=1):
    pairs = draw(st.lists(maps(way), min_size=least, max_size=8))
    classes = [draw(st.permutations([1, 2, 3, 4]))[:way] for _ in pairs]
    counted = (IoUCounts.from_masks(p, t, way) for p, t in pairs)
    return [EpisodeCounts.of(i, c, n) for i, (c, n) in enumerate(zip(classes, counted, strict=True))]


@FEW
@given(maps())
def test_counts_are_what_a_loop_counts(pair):
    prediction, truth = pair
    counts, known = IoUCounts.from_masks(prediction, truth, 3), truth != 255
    for label in range(4):
        p, t = (prediction == label) & known, truth == label
        assert counts.intersection[label] == (p & t).sum() and counts.union[label] == (p | t).sum()
        assert counts.predicted[label] == p.sum() and counts.truth[label] == t.sum()


@FEW
@given(maps(), st.sampled_from([np.int8, np.int16, np.int32, np.int64, np.uint16]))
def test_the_type_of_the_labels_does_not_matter(pair, kind):
    prediction, truth = pair
    ignore = -1 if np.dtype(kind).kind == "i" else 60000
    other = np.where(truth == 255, ignore, truth.astype(np.int64)).astype(kind)
    assert IoUCounts.from_masks(prediction.astype(kind), other, 3, ignore=ignore) == IoUCounts.from_masks(*pair, 3)


@FEW
@given(maps(), maps())
def test_counts_round_trip_and_add(one, two):
    a, b = IoUCounts.from_masks(*one, 3), IoUCounts.from_masks(*two, 3)
    assert IoUCounts.from_array(a.to_array()) == a
    assert a + b == b + a and a + IoUCounts.zeros(3) == a
    assert np.array_equal((a + b).union, a.union + b.union)
    assert (a + b).foreground() == a.foreground() + b.foreground()


@FEW
@given(maps())
def test_the_foreground_is_any_class(pair):
    prediction, truth = pair
    two = np.where(truth == 255, 255, truth > 0).astype(np.uint8)
    assert IoUCounts.from_masks(*pair, 3).foreground() == IoUCounts.from_masks(
        (prediction > 0).astype(np.uint8), two, 1
    )


@FEW
@given(runs(), st.randoms(use_true_random=False), st.data())
def test_law_3_halves_in_any_order_give_the_same_bits(parts, random, data):
    whole = EpisodeCounts.merge(parts)
    cut = data.draw(st.integers(0, len(parts) - 1))
    random.shuffle(parts)
    # A killed run resumes: the second half may repeat rows of the first.
    halves = [EpisodeCounts.merge(half) for half in (parts[: cut + 1], parts[cut:])]
    merged = EpisodeCounts.merge(halves[::-1])
    assert merged.to_table().tobytes() == whole.to_table().tobytes()
    for score in (fss_miou, fb_iou, strict_miou, panet_miou, presence_accuracy):
        assert np.float64(score(merged).value).tobytes() == np.float64(score(whole).value).tobytes()


@FEW
@given(runs())
def test_rows_round_trip_and_pair_with_themselves(parts):
    whole = EpisodeCounts.merge(parts)
    again = EpisodeCounts.from_table(whole.to_table(), whole.way)
    assert np.array_equal(again.to_table(), whole.to_table()) and again.same_episodes(whole)
    assert whole.to_table().shape == (len(whole), len(EpisodeCounts.columns(whole.way)))


@FEW
@given(runs())
def test_scores_lie_in_0_and_1_and_perfect_ones_are_1(parts):
    rows = EpisodeCounts.merge(parts)
    best = EpisodeCounts(rows.index, rows.classes, IoUCounts(rows.counts.truth, rows.counts.truth, rows.counts.truth))
    for score in (fss_miou, fb_iou, strict_miou, panet_miou, presence_accuracy):
        assert np.isnan(score(rows).value) or 0 <= score(rows).value <= 1
        assert np.isnan(score(best).value) or score(best).value == 1
    # Episodes that lack a class can but lower its IoU.
    strict, free = strict_miou(rows).parts, panet_miou(rows).parts
    assert all(np.isnan(free[c]) or strict[c] <= free[c] for c in free)


@FEW
@given(runs(least=2), st.integers(0, 2**32))
def test_intervals_hold_their_order_and_repeat(parts, seed):
    score = fss_miou(EpisodeCounts.merge(parts))
    one = bootstrap(score, samples=40, seed=seed)
    assert one == bootstrap(score, samples=40, seed=np.random.default_rng(seed)) or np.isnan(one.low)
    assert np.isnan(one.low) or 0 <= one.low <= one.high <= 1
    same = paired_bootstrap(score, score, samples=40, seed=seed)
    assert np.isnan(same.value) or (same.value, same.low, same.high) == (0, 0, 0)


@FEW
@given(
    st.lists(
        st.tuples(arrays(np.float32, (3, 4, 5), elements=st.floats(0, 1, width=32)), st.integers(0, 9)),
        min_size=1,
        max_size=4,
    )
)
def test_calibration_counts_add_exactly(images):
    counts = []
    for scores, seed in images:
        total = scores.sum(0, keepdims=True)
        shares = np.where(total > 0, scores / np.maximum(total, 1e-6), np.float32(1 / 3)).astype(np.float32)
        truth = np.random.default_rng(seed).choice([0, 1, 2, 255], (4, 5))
        counts.append(CalibrationCounts.from_scores(shares, truth))
        known = truth != 255
        best, right = shares.max(0)[known], shares.argmax(0)[known] == truth[known]
        assert counts[-1].pixels.sum() == known.sum() and counts[-1].right.sum() == right.sum()
        assert abs(counts[-1].confidence.sum() / (15 * 1024) - best.sum()) <= 20 / (15 * 1024)
        assert not known.any() or counts[-1].error >= abs(best.mean() - right.mean()) - 1e-3
    forward, backward = CalibrationCounts.zeros(), CalibrationCounts.zeros()
    for one, other in zip(counts, counts[::-1], strict=True):
        forward, backward = forward + one, backward + other
    assert forward == backward and CalibrationCounts.from_array(forward.to_array()) == forward


@FEW
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 10**6), st.floats(0.0, 0.2))
def test_contours_agree_with_a_distance_transform(height, width, seed, tolerance):
    rng = np.random.default_rng(seed)
    one, two = (ndimage.gaussian_filter(rng.random((height, width)), 2) > 0.5 for _ in range(2))
    reach = max(1.0, tolerance * np.hypot(height, width))
    a, b = contour(one), contour(two)
    found = boundary_f(one.astype(np.uint8), two.astype(np.uint8), 1, tolerance=tolerance)[0]
    if not a.any() or not b.any():
        assert np.isnan(found) if not a.any() and not b.any() else found == 0
        return
    precision = (ndimage.distance_transform_edt(~b)[a] <= reach).mean()
    recall = (ndimage.distance_transform_edt(~a)[b] <= reach).mean()
    wanted = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert abs(found - wanted) < 1e-12
