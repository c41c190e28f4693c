"""Pixel counts of label maps, as integers that add: every score is computed from them.

All arrays end in an axis of N+1 labels: 0 is the background, 1..N are the classes (ways) in their order.
Scores come last and sums first, so two halves of a run merge to the same bits as the whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import MaskError, ShapeError

IGNORE = 255
Counts = NDArray[np.int64]


def check_label_map(
    labels: Any, n_classes: int, what: str, *, ignore: int | None = None, size_hw: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """Let only an integer label map pass: (h, w), labels in 0..n_classes or `ignore`, of size `size_hw`.

    The paper that kshot starts from scored its predictions against the query image instead of its mask;
    an image is therefore refused by name. Raises `ShapeError` (kind, size) and `MaskError` (labels).
    """
    if not isinstance(labels, np.ndarray):
        raise ShapeError(f"{what}: expected a label map as an array (h, w), got {type(labels).__name__}")
    if labels.ndim == 3 and (labels.shape[2] in {3, 4} or labels.shape[0] in {3, 4}):
        raise ShapeError(
            f"{what}: an image of shape {labels.shape} was given instead of a label map (h, w); "
            "pass the mask that belongs to the image"
        )
    if labels.ndim != 2 or 0 in labels.shape:
        raise ShapeError(f"{what}: expected a label map of shape (h, w), got {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise ShapeError(f"{what}: expected integer labels, got {labels.dtype}; convert it on purpose if it is a mask")
    if size_hw is not None and labels.shape != size_hw:
        raise ShapeError(f"{what}: expected the size of the truth, {size_hw}, got {labels.shape}")
    _check_range(labels, n_classes, what, ignore)
    return labels


def _check_range(labels: NDArray[Any], n_classes: int, what: str, ignore: int | None) -> None:
    if labels.min() >= 0 and labels.max() <= n_classes:
        return
    wrong = (labels < 0) | (labels > n_classes)
    if ignore is not None:
        wrong &= labels != ignore
    if wrong.any():
        found = np.unique(labels[wrong])
        listed = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
        beside = "" if ignore is None else f" (or {ignore}, ignore)"
        raise MaskError(
            f"{what}: expected labels in 0..{n_classes}{beside}, got {listed}; "
            "was a grey image, or a map of other classes, given instead of the label map?"
        )


@dataclass(frozen=True, eq=False)
class IoUCounts:
    """Pixels per label: right ones, predicted ones and true ones; ignored pixels are in none of them.

    intersection, predicted, truth: (..., N+1) int64, one row or one row an episode; `+` adds exactly.
    Raises `ShapeError` when the three differ in shape or are no integers.
    """

    intersection: Counts
    predicted: Counts
    truth: Counts

    def __post_init__(self) -> None:
        shapes = {self.intersection.shape, self.predicted.shape, self.truth.shape}
        kinds = {self.intersection.dtype.kind, self.predicted.dtype.kind, self.truth.dtype.kind}
        if len(shapes) != 1 or not self.truth.shape or kinds - set("iu"):
            raise ShapeError(f"expected three integer arrays of one shape (..., N+1), got {shapes}, kinds {kinds}")

    @classmethod
    def zeros(cls, n_classes: int) -> "IoUCounts":
        """The counts of nothing, (N+1,)."""
        return cls.from_array(np.zeros((3, n_classes + 1), np.int64))

    @classmethod
    def from_masks(cls, prediction: Any, truth: Any, n_classes: int, ignore: int = IGNORE) -> "IoUCounts":
        """Count one image. n_classes: N, without the background.

        prediction: (h, w) integers in 0..N. truth: (h, w) integers in 0..N, or `ignore`, which is left out of
        intersection and union. Raises `ShapeError` and `MaskError`.
        """
        check_label_map(truth, n_classes, "the truth", ignore=ignore)
        check_label_map(prediction, n_classes, "the prediction", size_hw=truth.shape)
        table = _confusion(prediction, truth, n_classes, ignore)
        return cls(np.diagonal(table).copy(), table.sum(axis=0), table.sum(axis=1))

    @property
    def union(self) -> Counts:
        """(..., N+1) pixels that are predicted or true."""
        return self.predicted + self.truth - self.intersection

    def __add__(self, other: "IoUCounts") -> "IoUCounts":
        if self.truth.shape != other.truth.shape:
            raise ShapeError(f"counts of shapes {self.truth.shape} and {other.truth.shape} do not add")
        return IoUCounts.from_array(self.to_array() + other.to_array())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IoUCounts) and np.array_equal(self.to_array(), other.to_array())

    def iou(self) -> NDArray[np.float64]:
        """(..., N+1) intersection over union; nan where the union is empty."""
        union = self.union
        return np.where(union > 0, self.intersection / np.maximum(union, 1), np.nan)

    def foreground(self) -> "IoUCounts":
        """(..., 2): the background, and all classes as one foreground (for FB-IoU)."""
        both = self.truth.sum(-1) - self.union[..., 0]
        return IoUCounts(
            np.stack([self.intersection[..., 0], both], -1),
            np.stack([self.predicted[..., 0], self.predicted[..., 1:].sum(-1)], -1),
            np.stack([self.truth[..., 0], self.truth[..., 1:].sum(-1)], -1),
        )

    def to_array(self) -> Counts:
        """(..., 3, N+1) int64: intersection, predicted, truth."""
        return np.stack([self.intersection, self.predicted, self.truth], axis=-2).astype(np.int64)

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> "IoUCounts":
        """Undo `to_array`."""
        if array.ndim < 2 or array.shape[-2] != 3:
            raise ShapeError(f"expected counts of shape (..., 3, N+1), got {array.shape}")
        return cls(array[..., 0, :], array[..., 1, :], array[..., 2, :])


def _confusion(prediction: NDArray[Any], truth: NDArray[Any], n_classes: int, ignore: int) -> Counts:
    """(N+1, N+1): rows are the truth, columns the prediction; the row of ignored pixels is dropped."""
    labels = n_classes + 1
    # One code a pixel, in the smallest type that holds it: bincount is then the only slow step.
    kind = np.min_scalar_type((labels + 1) * labels - 1)
    rows = np.where(truth == ignore, kind.type(labels), truth.astype(kind, copy=False))
    codes = rows * kind.type(labels) + prediction.astype(kind, copy=False)
    counted = np.bincount(codes.ravel(), minlength=(labels + 1) * labels)
    return counted.reshape(labels + 1, labels)[:labels].astype(np.int64)


@dataclass(frozen=True, eq=False)
class EpisodeCounts:
    """The counts of a run: one row an episode, so that runs merge, resume, pair and resample.

    index: (E,) the episodes' numbers, rising. classes: (E, N) the data set's class ids of the ways.
    counts: `IoUCounts` of (E, N+1). Raises `ShapeError`.
    """

    index: Counts
    classes: Counts
    counts: IoUCounts

    def __post_init__(self) -> None:
        rows = self.index.shape[0] if self.index.ndim == 1 else -1
        expected = (rows, self.classes.shape[-1] + 1)
        if self.classes.ndim != 2 or self.classes.shape[0] != rows or self.counts.truth.shape != expected:
            raise ShapeError(
                f"expected (E,) numbers, (E, N) classes and (E, N+1) counts, got {self.index.shape}, "
                f"{self.classes.shape} and {self.counts.truth.shape}"
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def way(self) -> int:
        """N, the number of classes of each episode."""
        return int(self.classes.shape[1])

    def same_episodes(self, other: "EpisodeCounts") -> bool:
        """Whether both runs saw the same episodes: numbers, classes and the truth's pixels agree."""
        return (
            np.array_equal(self.index, other.index)
            and np.array_equal(self.classes, other.classes)
            and np.array_equal(self.counts.truth, other.counts.truth)
        )

    @classmethod
    def of(cls, index: int, classes: Sequence[int], counts: IoUCounts) -> "EpisodeCounts":
        """One episode as a run of one row."""
        table = counts.to_array()[None]
        return cls(np.array([index], np.int64), np.array([classes], np.int64), IoUCounts.from_array(table))

    @classmethod
    def merge(cls, parts: Iterable["EpisodeCounts"]) -> "EpisodeCounts":
        """One run out of its parts, in any order. An episode may come twice if both rows are the same.

        Raises `ShapeError` for parts of different N, and for two different rows of one episode.
        """
        kept = list(parts)
        if len({part.way for part in kept}) != 1:
            raise ShapeError(f"expected parts of one N, got N = {sorted({part.way for part in kept})}")
        table = np.unique(np.concatenate([part.to_table() for part in kept]), axis=0)
        twice = table[1:, 0][table[1:, 0] == table[:-1, 0]]
        if len(twice):
            raise ShapeError(
                f"episode {twice[0]} was counted twice with different results; are these parts of one run?"
            )
        return cls.from_table(table, kept[0].way)

    def to_table(self) -> Counts:
        """(E, 1 + N + 3(N+1)) int64 in the order of `columns`."""
        flat = self.counts.to_array().reshape(len(self), 3 * (self.way + 1))
        return np.concatenate([self.index[:, None], self.classes, flat], axis=1).astype(np.int64)

    @classmethod
    def from_table(cls, table: NDArray[Any], way: int) -> "EpisodeCounts":
        """Undo `to_table`; the rows are sorted by episode. Raises `ShapeError`."""
        if table.ndim != 2 or table.shape[1] != len(cls.columns(way)):
            raise ShapeError(f"expected a table of {len(cls.columns(way))} columns for {way}-way, got {table.shape}")
        rows = np.asarray(table, np.int64)[np.argsort(table[:, 0], kind="stable")]
        counts = IoUCounts.from_array(rows[:, 1 + way :].reshape(len(rows), 3, way + 1))
        return cls(rows[:, 0], rows[:, 1 : 1 + way], counts)

    @staticmethod
    def columns(way: int) -> tuple[str, ...]:
        """Names of the columns of `to_table`, for the head of a CSV."""
        counted = [f"{kind}_{n}" for kind in ("intersection", "predicted", "truth") for n in range(way + 1)]
        return ("episode", *(f"class_{n}" for n in range(1, way + 1)), *counted)
