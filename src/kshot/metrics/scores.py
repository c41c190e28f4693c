"""Scores over a run: each is a mean of ratios of sums over episodes, and keeps the parts that it is made of.

mIoU in few-shot segmentation is not the mean over images: I/U = 1/1 and 0/99 give 1/100, not 1/2. Sums of
integers come first, one division per class, then the mean over classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ShapeError
from kshot.metrics.counts import EpisodeCounts

Floats = NDArray[np.float64]
AREA_EDGES = (0.0, 0.01, 0.05, 0.15, 0.4, 1.0)


@dataclass(frozen=True, eq=False)
class Score:
    """One figure of a run with all that it is made of: the mean over M parts of sum(numerator) / sum(denominator).

    A part whose denominators sum to 0 was never seen: it is nan and left out of the mean.
    """

    name: str
    labels: tuple[int | str, ...]
    """M names or class ids, one for each part (0 = background)."""
    index: NDArray[np.int64]
    """(E,) numbers of the episodes."""
    numerator: NDArray[Any]
    """(E, M), such as intersections."""
    denominator: NDArray[Any]
    """(E, M), such as unions."""

    def __post_init__(self) -> None:
        expected = (len(self.index), len(self.labels))
        if self.numerator.shape != expected or self.denominator.shape != expected:
            raise ShapeError(
                f"expected parts of shape {expected}, got {self.numerator.shape}, {self.denominator.shape}"
            )

    @property
    def value(self) -> float:
        """The mean over the parts that were seen; nan when none was."""
        return float(mean_of_ratios(self.numerator.sum(axis=0), self.denominator.sum(axis=0)))

    @property
    def parts(self) -> dict[int | str, float]:
        """{label: ratio of sums}; nan for a label that was never seen."""
        found = ratios(self.numerator.sum(axis=0), self.denominator.sum(axis=0))
        return dict(zip(self.labels, found.tolist(), strict=True))

    @property
    def left_out(self) -> tuple[int | str, ...]:
        """The labels that were never seen and do not count."""
        return tuple(label for label, part in self.parts.items() if np.isnan(part))


def ratios(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """Element by element; nan where the denominator is 0."""
    seen = denominator > 0
    return np.where(seen, numerator / np.where(seen, denominator, 1), np.nan)


def mean_of_ratios(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """(..., M) sums to (...): the mean over the ratios that exist; nan when none does."""
    seen = denominator > 0
    total = np.where(seen, numerator / np.where(seen, denominator, 1), 0.0).sum(-1)
    counted = seen.sum(-1)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)


def fss_miou(rows: EpisodeCounts, classes: Sequence[int] | None = None) -> Score:
    """The field's mIoU: I and U of each class summed over all episodes, divided, averaged; no background.

    classes: the fold's class ids (default: those that occur). Source: HSNet (Min et al. 2021), section 5.
    """
    labels = _labels(rows, classes)
    return _iou_score("mIoU", rows, labels, np.ones_like(rows.classes, bool))


def fb_iou(rows: EpisodeCounts) -> Score:
    """Mean of the background's and the foreground's IoU, each summed over all classes and episodes.

    With several ways any class is foreground. Source: Rakelly et al. 2018; HSNet's evaluation.
    """
    two = rows.counts.foreground()
    return Score("FB-IoU", ("background", "foreground"), rows.index, two.intersection, two.union)


def strict_miou(rows: EpisodeCounts, classes: Sequence[int] | None = None) -> Score:
    """Mean over the classes and the background; false alarms of absent ways count (protocol P4)."""
    score = fss_miou(rows, classes)
    counts = rows.counts
    numerator = np.concatenate([counts.intersection[:, :1], score.numerator], axis=1)
    denominator = np.concatenate([counts.union[:, :1], score.denominator], axis=1)
    return Score("strict mIoU", (0, *score.labels), rows.index, numerator, denominator)


def panet_miou(rows: EpisodeCounts, classes: Sequence[int] | None = None) -> Score:
    """PANet's published mIoU: a way counts only in episodes whose truth contains it, no background.

    False alarms of absent ways are free, so it is no substitute for `strict_miou`.
    Source: Wang et al. 2019, the authors' util/metric.py.
    """
    labels = _labels(rows, classes)
    return _iou_score("PANet mIoU", rows, labels, rows.counts.truth[:, 1:] > 0)


def presence_accuracy(rows: EpisodeCounts, predicted: NDArray[np.bool_] | None = None) -> Score:
    """Fraction of episodes whose set of present classes was found exactly.

    predicted: (E, N) truth values in the rows' order; by default a way is present if any pixel has its label.
    Source: exact ratio, iFSL (Kang and Cho 2022), section 5.
    """
    right = np.asarray(_presence_right(rows, predicted).all(axis=1), np.int64)[:, None]
    return Score("presence accuracy", ("exact",), rows.index, right, np.ones_like(right))


def class_presence(
    rows: EpisodeCounts, predicted: NDArray[np.bool_] | None = None, classes: Sequence[int] | None = None
) -> Score:
    """Per class: fraction of its episodes in which its presence or absence was found; then the mean."""
    labels = _labels(rows, classes)
    right = _presence_right(rows, predicted).astype(np.int64)
    numerator, denominator = (scatter(rows, values, labels) for values in (right, np.ones_like(right)))
    return Score("class presence", labels, rows.index, numerator, denominator)


def mean_per_class(name: str, rows: EpisodeCounts, values: NDArray[Any], classes: Sequence[int] | None = None) -> Score:
    """A score out of values that are means over episodes, such as `boundary_f`; nan is left out.

    values: (E, N), one a way. Averaged over the episodes of each class, then over classes.
    """
    if values.shape != rows.classes.shape:
        raise ShapeError(f"expected values of shape {rows.classes.shape}, got {values.shape}")
    labels, valid = _labels(rows, classes), ~np.isnan(values)
    numerator = scatter(rows, np.where(valid, values, 0.0), labels)
    return Score(name, labels, rows.index, numerator, scatter(rows, valid.astype(np.int64), labels))


def scatter(rows: EpisodeCounts, values: NDArray[Any], labels: Sequence[int]) -> NDArray[Any]:
    """(E, N) values of ways to (E, M) values of classes; ways of other classes fall away."""
    order = np.argsort(np.asarray(labels, np.int64), kind="stable")
    ordered = np.asarray(labels, np.int64)[order]
    spread = np.zeros((len(rows), len(ordered)), values.dtype)
    for n in range(rows.way if len(ordered) else 0):
        place = np.minimum(np.searchsorted(ordered, rows.classes[:, n]), len(ordered) - 1)
        listed = np.flatnonzero(ordered[place] == rows.classes[:, n])
        spread[listed, order[place[listed]]] += values[listed, n]
    return spread


@dataclass(frozen=True)
class SizeBin:
    """Objects whose true area, as a fraction of the labelled pixels, is over `low` and at most `high`."""

    low: float
    high: float
    objects: int
    """How many there are."""
    iou: float
    """Sum of their intersections over the sum of their unions; nan when there are none."""
    mean_iou: float
    """Mean over the IoUs of single objects; nan when there are none."""


def size_table(rows: EpisodeCounts, edges: Sequence[float] = AREA_EDGES) -> tuple[SizeBin, ...]:
    """IoU against object size; an object is all of a class in one image, and an absent way is none.

    edges: rising fractions of the image in 0..1.
    """
    truth, counts = rows.counts.truth[:, 1:], rows.counts
    fraction = truth / np.maximum(counts.truth.sum(axis=1, keepdims=True), 1)
    intersection, union = counts.intersection[:, 1:], counts.union[:, 1:]
    table = []
    for low, high in pairwise(edges):
        here = (truth > 0) & (fraction > low) & (fraction <= high)
        single = ratios(intersection[here], union[here])
        whole = ratios(intersection[here].sum(), union[here].sum())
        mean = float(single.mean()) if len(single) else float("nan")
        table.append(SizeBin(float(low), float(high), int(here.sum()), float(whole), mean))
    return tuple(table)


def _labels(rows: EpisodeCounts, classes: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(np.unique(rows.classes).tolist()) if classes is None else tuple(int(c) for c in classes)


def _iou_score(name: str, rows: EpisodeCounts, labels: tuple[int, ...], counted: NDArray[np.bool_]) -> Score:
    numerator = scatter(rows, rows.counts.intersection[:, 1:] * counted, labels)
    return Score(name, labels, rows.index, numerator, scatter(rows, rows.counts.union[:, 1:] * counted, labels))


def _presence_right(rows: EpisodeCounts, predicted: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    found = rows.counts.predicted[:, 1:] > 0 if predicted is None else predicted
    if found.shape != rows.classes.shape or found.dtype != np.bool_:
        raise ShapeError(f"expected presence as truth values {rows.classes.shape}, got {found.shape} of {found.dtype}")
    right: NDArray[np.bool_] = found == (rows.counts.truth[:, 1:] > 0)
    return right
