"""Objects of one class in one image against the true ones, and figures out of that: PQ, SQ, RQ, AP50, count error.

PQ: Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 4. AP50: COCO's average precision at an IoU of 0.5,
with 101 points of recall, as pycocotools computes it for objects of all areas, without its bound of 100 objects per
image. What is kept of an image are integers, so that runs merge and go on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ShapeError
from kshot.metrics.scores import Score

Place = tuple[slice, slice]
Crop = NDArray[np.bool_]
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class ObjectMatches:
    """The objects found of one class in one image, each with the true object that it covers best."""

    true: int
    """How many true objects there are."""
    scores: NDArray[np.float64]
    """(n,) of the objects found, in 0..1."""
    shared: NDArray[np.int64]
    """(n,) pixels in common with the true object; 0 for a false alarm, as below an IoU of 0.5."""
    union: NDArray[np.int64]
    """(n,) pixels of either; of a false alarm its own."""

    @property
    def ious(self) -> NDArray[np.float64]:
        """(n,) IoU with the true object, 0.5..1, or 0."""
        return np.where(self.shared > 0, self.shared / np.maximum(self.union, 1), 0.0)

    @property
    def matched(self) -> NDArray[np.bool_]:
        """(n,) whether the IoU is over 0.5, as PQ asks; AP50 is content with 0.5."""
        return 2 * self.shared > self.union

    @property
    def quality(self) -> tuple[float, int, int, int]:
        """Sum of the IoUs of matched objects, how many these are, false alarms, and true objects without a match."""
        matched = self.matched
        right = int(matched.sum())
        return float(self.ious[matched].sum()), right, len(matched) - right, self.true - right


def match_objects(
    found: Iterable[tuple[Place, Crop]],
    scores: Sequence[float],
    numbers: NDArray[np.integer[Any]],
    ignored: NDArray[np.bool_] | None = None,
) -> ObjectMatches:
    """Match objects with the true ones, from the highest score down, each true one once, at an IoU of 0.5 or more.

    found: each object's box and its mask there, disjoint. numbers: (h, w), a number from 1 on per true object, 0
    outside. ignored: (h, w) pixels that count in no object; an object that matches none and lies there by more than
    half counts as not found. Raises `ShapeError` when sizes or counts differ.
    """
    objects = list(found)
    if len(objects) != len(scores) or (ignored is not None and ignored.shape != numbers.shape):
        raise ShapeError(
            f"expected a score an object and maps of one size, got {len(scores)} scores of {len(objects)} objects, "
            f"{numbers.shape} and {None if ignored is None else ignored.shape}"
        )
    truth = numbers if ignored is None else np.where(ignored, 0, numbers)
    kinds, flat = np.unique(truth, return_inverse=True)
    labels = flat.reshape(truth.shape) + int(kinds[0] != 0)  # 1..n, however large the numbers are
    areas = np.bincount(labels.ravel())
    free, rows = np.ones(len(areas), np.bool_), np.zeros((len(objects), 3), np.int64)
    for index in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        place, crop = objects[index]
        inside, whole = labels[place][crop], int(crop.sum())
        if ignored is not None:
            inside = inside[~ignored[place][crop]]
        rows[index] = *_best(inside, areas, free), whole > 2 * len(inside)
    kept = (rows[:, 0] > 0) | (rows[:, 2] == 0)
    return ObjectMatches(int((areas[1:] > 0).sum()), np.asarray(scores, np.float64)[kept], rows[kept, 0], rows[kept, 1])


def _best(inside: NDArray[np.intp], areas: NDArray[np.intp], free: NDArray[np.bool_]) -> tuple[int, int]:
    """(pixels in common, union) of an object with the true one it matches, which is then taken; (0, its own) of none.

    inside: the true objects' labels under its pixels. areas, free: of the true objects by label.
    """
    under, shared = np.unique(inside, return_counts=True)
    union = len(inside) + areas[under] - shared
    able = (under > 0) & free[under] & (2 * shared >= union)
    if not able.any():
        return 0, len(inside)
    # Of equal ones the last, as in pycocotools.
    best = max(np.flatnonzero(able), key=lambda place: (shared[place] / union[place], place))
    free[under[best]] = False
    return int(shared[best]), int(union[best])


def average_precision(images: Sequence[ObjectMatches]) -> float:
    """AP50 of a class over images, 0..1; nan when none holds a true object."""
    true = sum(image.true for image in images)
    if not true:
        return float("nan")
    order = np.argsort(-np.concatenate([image.scores for image in images]), kind="stable")
    hits = np.concatenate([image.shared > 0 for image in images])[order].cumsum()
    if not len(hits):
        return 0.0
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or a higher one
    place = np.searchsorted(hits / true, _RECALLS, side="left")
    return float(np.where(place < len(hits), precision[np.minimum(place, len(hits) - 1)], 0.0).mean())


def panoptic_quality(
    index: NDArray[np.int64], labels: Sequence[int], found: Sequence[dict[int, ObjectMatches]]
) -> Score:
    """PQ of E episodes as a mean of ratios over classes, which can be resampled.

    index: (E,) numbers of the episodes. labels: class ids. found: E maps from classes to their objects in an episode.
    """
    parts = np.zeros((2, len(found), len(labels)))
    for row, classes in enumerate(found):
        for label, matches in classes.items():
            ious, right, false, missed = matches.quality
            parts[:, row, labels.index(label)] += ious, right + (false + missed) / 2
    return Score("PQ", tuple(labels), index, *parts)


@dataclass(frozen=True)
class ObjectFigures:
    """Of objects: means over the classes that were found or true, each over all its images."""

    pq: float
    """Panoptic quality, 0..1: `sq` times `rq` in each class."""
    sq: float
    """Segmentation quality, 0..1: mean IoU of the matched objects, 0 of a class without any."""
    rq: float
    """Recognition quality, 0..1: F1 of the objects at an IoU over 0.5."""
    ap50: float
    """`average_precision`, over the classes with true objects."""
    count_error: float
    """Sum over images of | found - true |, over the true objects; over the classes with true objects."""

    @classmethod
    def of(cls, classes: Iterable[Sequence[ObjectMatches]]) -> "ObjectFigures":
        """The figures of classes, each given by its images; nan where there is nothing to average."""
        given = [images for images in map(list, classes) if images]  # a run may hold no episode of a class
        qualities = [np.sum([image.quality for image in images], axis=0) for images in given]
        seen = [(s, r, r + (f + m) / 2) for s, r, f, m in qualities if r + f + m]
        return cls(
            _mean(s / whole for s, _, whole in seen),
            _mean(s / r if r else 0.0 for s, r, _ in seen),
            _mean(r / whole for _, r, whole in seen),
            _mean(average_precision(images) for images in given),
            _mean(map(_count_error, given)),
        )


def _count_error(images: Sequence[ObjectMatches]) -> float:
    true = sum(image.true for image in images)
    return sum(abs(len(image.scores) - image.true) for image in images) / true if true else float("nan")


def _mean(values: Iterable[float]) -> float:
    """Of what is not nan; nan of nothing."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
