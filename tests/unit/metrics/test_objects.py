"""Objects against true ones: numbers counted by hand, and the figures of pycocotools and torchmetrics."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import PanopticQuality

from kshot.errors import ShapeError
from kshot.metrics import ObjectFigures, ObjectMatches, match_objects, panoptic_quality
from kshot.metrics.objects import Crop, Place, average_precision
from kshot.ops.components import split

Image = tuple[list[tuple[Place, Crop]], list[float], np.ndarray]


def numbers_of(size_hw: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """xyxy."""
    numbers = np.zeros(size_hw, np.int32)
    for number, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        numbers[y0:y1, x0:x1] = number
    return numbers


def box(x0: int, y0: int, x1: int, y1: int) -> tuple[Place, Crop]:
    return (slice(y0, y1), slice(x0, x1)), np.ones((y1 - y0, x1 - x0), np.bool_)


def test_figures_by_hand() -> None:
    # Three true squares of 4 x 4; found: one exact, one of 3 of its 4 rows, and one beside the third.
    truth = numbers_of((4, 20), (0, 0, 4, 4), (6, 0, 10, 4), (12, 0, 16, 4))
    matches = match_objects([box(0, 0, 4, 4), box(6, 0, 10, 3), box(16, 0, 20, 4)], [0.9, 0.8, 0.95], truth)
    assert matches.true == 3 and matches.ious.tolist() == [1.0, 0.75, 0.0]
    assert matches.shared.tolist() == [16, 12, 0] and matches.union.tolist() == [16, 16, 16]
    figures = ObjectFigures.of([[matches]])
    assert figures.sq == pytest.approx(1.75 / 2)
    assert figures.rq == pytest.approx(2 / 3) and figures.pq == pytest.approx(1.75 / 3)
    # Down the scores: wrong, right, right. Precision 0, 1/2, 2/3 at recalls 0, 1/3, 2/3; from 2/3 on nothing is found.
    assert figures.ap50 == pytest.approx(2 / 3 * 67 / 101)
    assert figures.count_error == 0.0


def test_counts_differ_image_by_image() -> None:
    empty = np.zeros((4, 8), np.int32)
    one = match_objects([box(0, 0, 4, 4)], [0.5], empty)
    two = match_objects([], [], numbers_of((4, 8), (0, 0, 4, 4)))
    figures = ObjectFigures.of([[one, two]])
    assert (figures.count_error, figures.pq, figures.sq, figures.rq, figures.ap50) == (2.0, 0.0, 0.0, 0.0, 0.0)


def test_classes_count_alike_and_an_unseen_one_not_at_all() -> None:
    right = match_objects([box(0, 0, 4, 4)], [0.5], numbers_of((4, 8), (0, 0, 4, 4)))
    missed = match_objects([], [], numbers_of((4, 8), (0, 0, 4, 4)))
    nothing = match_objects([], [], np.zeros((4, 8), np.int32))
    figures = ObjectFigures.of([[right, right, right], [missed], [nothing]])
    assert figures.pq == 0.5 and figures.ap50 == 0.5 and figures.count_error == 0.5
    assert np.isnan(ObjectFigures.of([[nothing]]).pq) and np.isnan(ObjectFigures.of([]).count_error)


def test_pq_asks_for_more_than_half_and_ap50_for_half() -> None:
    matches = match_objects([box(0, 0, 4, 2)], [0.5], numbers_of((4, 8), (0, 0, 4, 4)))
    figures = ObjectFigures.of([[matches]])
    assert (matches.ious.tolist(), figures.ap50, figures.pq, figures.rq) == ([0.5], 1.0, 0.0, 0.0)


def test_a_true_object_is_taken_once_by_the_better_score() -> None:
    truth = numbers_of((4, 8), (0, 0, 4, 4))
    matches = match_objects([box(0, 0, 4, 2), box(0, 2, 4, 4)], [0.4, 0.6], truth)
    assert matches.shared.tolist() == [0, 8] and matches.union.tolist() == [8, 16]


def test_ignored_pixels_count_in_nothing() -> None:
    truth, ignored = numbers_of((4, 12), (0, 0, 4, 4)), np.zeros((4, 12), np.bool_)
    ignored[:, 3:8] = True
    # One column less of the first; the second lies in what is ignored by three quarters, the third by half.
    found = [box(0, 0, 5, 4), box(5, 0, 9, 4), box(9, 0, 11, 4)]
    ignored[:, 9] = True
    matches = match_objects(found, [0.9, 0.8, 0.7], truth, ignored)
    assert matches.true == 1
    assert matches.shared.tolist() == [12, 0] and matches.union.tolist() == [12, 4] and matches.scores[1] == 0.7


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="a score an object"):
        match_objects([box(0, 0, 2, 2)], [], np.zeros((4, 4), np.int32))
    with pytest.raises(ShapeError, match="maps of one size"):
        match_objects([], [], np.zeros((4, 4), np.int32), np.zeros((4, 5), np.bool_))


def test_ten_thousand_objects_are_matched_each_with_its_own() -> None:
    numbers = np.kron(np.arange(1, 10_001, dtype=np.int32).reshape(100, 100), np.ones((4, 4), np.int32))
    found = [box(4 * x, 4 * y, 4 * x + 3, 4 * y + 4) for y in range(100) for x in range(100)]
    matches = match_objects(found, [0.5] * 10_000, numbers)
    assert matches.true == 10_000 and set(matches.ious.tolist()) == {0.75}


def made(seed: int) -> Image:
    """True squares in disorder; found are most of them, moved and with scores, and a few that are wrong."""
    rng = np.random.default_rng(seed)
    numbers, mask = np.zeros((96, 96), np.int32), np.zeros((96, 96), np.bool_)
    for number, place in enumerate(rng.permutation(36)[:20], start=1):
        y, x = 16 * (place // 6) + 3, 16 * (place % 6) + 3
        height, width = rng.integers(5, 10, 2)
        numbers[y : y + height, x : x + width] = number
        dy, dx = rng.integers(-2, 3, 2)
        if rng.random() < 0.8:
            mask[y + dy : y + dy + height, x + dx : x + dx + width] = True
    found = list(split(mask))
    return found, np.round(rng.random(len(found)), 1).tolist(), numbers  # rounded: scores of objects tie


@pytest.mark.parametrize("seed", range(4))
def test_ap50_is_that_of_pycocotools(seed: int) -> None:
    images = [made(10 * seed + n) for n in range(5)]
    ours = average_precision([match_objects(*image) for image in images])
    assert 0.05 < ours < 0.95 and ours == pytest.approx(coco_ap50(images), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_pq_is_that_of_torchmetrics(seed: int) -> None:
    metric = PanopticQuality(things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
    matches = []
    for found, scores, numbers in (made(10 * seed + n) for n in range(5)):
        matches.append(match_objects(found, scores, numbers))
        other = np.zeros_like(numbers)
        for number, (place, crop) in enumerate(found, start=1):
            other[place][crop] = number
        maps = [np.stack([labels > 0, labels], -1).astype(np.int64)[None] for labels in (other, numbers)]
        metric.update(*map(torch.from_numpy, maps))
    pq, sq, rq = metric.compute()[0].tolist()
    figures = ObjectFigures.of([matches])
    assert (figures.pq, figures.sq, figures.rq) == pytest.approx((pq, sq, rq), abs=1e-6) and 0.1 < pq < 0.9


def coco_ap50(images: list[Image]) -> float:
    truth, entries, results = COCO(), list[dict[str, Any]](), list[dict[str, Any]]()
    for i, (found, scores, numbers) in enumerate(images, start=1):
        for number in np.unique(numbers[numbers > 0]):
            encoded = rle.encode(np.asfortranarray(numbers == number, np.uint8))
            facts = {"id": len(entries) + 1, "image_id": i, "category_id": 1, "iscrowd": 0}
            facts |= {"area": float(rle.area(encoded)), "bbox": rle.toBbox(encoded).tolist()}
            entries.append(facts | {"segmentation": encoded})
        for (place, crop), score in zip(found, scores, strict=True):
            whole = np.zeros(numbers.shape, np.uint8, "F")
            whole[place] = crop
            results.append({"image_id": i, "category_id": 1, "segmentation": rle.encode(whole), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        sizes = [{"id": i, "height": 96, "width": 96} for i in range(1, len(images) + 1)]
        truth.dataset = {"images": sizes, "annotations": entries, "categories": [{"id": 1, "name": "it"}]}
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(results), "segm")
        run.evaluate()
        run.accumulate()
    return float(run.eval["precision"][0, :, 0, 0, 2].mean())


def test_matches_of_nothing_have_figures_of_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert average_precision([ObjectMatches(2, none.astype(np.float64), none, none)]) == 0.0


def test_pq_of_episodes_is_a_mean_of_ratios_over_classes() -> None:
    """Class 1: 0.8 of one right, then one missed beside one false alarm: 0.8 / 2. Class 2: 0.6 / (1 + 1/2)."""
    right = ObjectMatches(1, np.array([0.9]), np.array([80]), np.array([100]))
    wrong = ObjectMatches(1, np.array([0.9]), np.array([0]), np.array([50]))
    one_missed = ObjectMatches(2, np.array([0.9]), np.array([60]), np.array([100]))
    index = np.arange(2)
    score = panoptic_quality(index, (1, 2, 3), [{1: right, 2: one_missed}, {1: wrong}])
    assert score.parts == pytest.approx({1: 0.4, 2: 0.4, 3: np.nan}, nan_ok=True)
    assert score.value == pytest.approx(0.4) == ObjectFigures.of([[right, wrong], [one_missed], []]).pq
