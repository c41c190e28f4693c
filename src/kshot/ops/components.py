"""Connected components of masks, and instances: components, or watershed basins where objects touch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kshot.errors import SettingError
from kshot.ops.object_shapes import Box, ObjectShape, around, split_by_shape

METHODS = ("components", "watershed", "learned")
# Two peaks are two objects where the saddle between them is lower than this fraction of the lower peak. Three quarters
# separate discs that overlap by a fifth of their width, and keep an ellipse of 1 : 2, or a ragged outline, whole.
_SADDLE = 0.75
_AT_ONCE = 2**22  # pixels that are scanned at once
_TOGETHER = 2**20  # pixels of a box whose components are taken apart in one go
Component = tuple[Box, NDArray[np.bool_]]


def check_method(method: str) -> None:
    """Raise `SettingError` for a name that is not one of `METHODS`."""
    if method not in METHODS:
        raise SettingError(f"instances (--instances) {method!r}: choices: {', '.join(METHODS)}")


def split(
    mask: NDArray[np.bool_],
    score: NDArray[np.float32] | None = None,
    method: str = "components",
    least: float = 0.0,
    shape: ObjectShape | None = None,
) -> Iterator[Component]:
    """The instances of a mask (h, w), each as its box and its mask there; disjoint, and together the mask.

    method: "components" for the 8-connected components; "watershed" also splits them where the distance to their rim,
    times the score (h, w) in 0..1 if given, dips between two peaks; "learned" where the parts are more like the known
    objects, `shape`, than the whole is (`object_shapes`). least: pixels of what is split off by watershed; a smaller
    basin goes to those around it. In the order of the components' first pixels. Raises `SettingError` for another
    method, and for "learned" without a shape.
    """
    check_method(method)
    found = connected_components(mask)
    if method == "components":
        yield from found
        return
    if method == "learned":
        if shape is None:
            raise SettingError(
                "instances (--instances) 'learned': no support's mask shows what one object is like; use watershed"
            )
        for place, inside in found:
            for own, crop in split_by_shape(inside, None if score is None else score[place], shape):
                yield _moved(own, (place[0].start, place[1].start), 1), crop
        return
    for group in _grouped(found):
        yield from _basins(group, score, least)


def _grouped(components: Iterable[Component]) -> Iterator[list[Component]]:
    """Components that lie together in a box of at most `_TOGETHER` pixels; a larger one is alone.

    Thousands of small objects are taken apart in one go, and memory does not grow with the image.
    """
    group: list[Component] = []
    box = (slice(0, 0), slice(0, 0))
    for component in components:
        wider = around(box, component[0]) if group else component[0]
        if group and (wider[0].stop - wider[0].start) * (wider[1].stop - wider[1].start) > _TOGETHER:
            yield group
            group, wider = [], component[0]
        group.append(component)
        box = wider
    if group:
        yield group


def connected_components(mask: NDArray[np.bool_], *, corners: bool = True) -> Iterator[Component]:
    """The components of a mask (h, w), each as its box and its mask there, in the order of their first pixels.

    corners: whether pixels that touch at a corner are connected. Memory grows with the runs in the rows and the largest
    component, not with the pixels, as a label map of large masks would.
    """
    runs = _runs(mask)
    if not len(runs):
        return
    whole = _joined(_touching(runs, mask.shape[1], corners), len(runs))
    order = np.argsort(whole, kind="stable")
    for own in np.split(runs[order], np.flatnonzero(np.diff(whole[order])) + 1):
        rows, left, right = own.T
        top, start, stop = int(rows[0]), int(left.min()), int(right.max())
        place = slice(top, int(rows[-1]) + 1), slice(start, stop)
        yield place, _drawn(own - (top, start, start), (place[0].stop - top, stop - start))


def _runs(labels: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n, 3) row, first column and next column of the runs of pixels of one label above 0, row by row."""
    width, found = labels.shape[1], [np.zeros((0, 3), np.int64)]
    step = max(1, _AT_ONCE // width)
    for top in range(0, len(labels), step):
        strip = labels[top : top + step]
        begins = np.ones(strip.shape, np.bool_)
        np.not_equal(strip[:, 1:], strip[:, :-1], out=begins[:, 1:])
        first = np.flatnonzero(begins)
        after, marked = np.append(first[1:], strip.size), strip.ravel()[first] > 0
        rows = first[marked] // width
        found.append(np.stack([rows + top, first[marked] - rows * width, after[marked] - rows * width], 1))
    return np.concatenate(found)


def _touching(runs: NDArray[np.int64], width: int, corners: bool) -> NDArray[np.int64]:
    """(m, 2) which run touches which run of the next row."""
    # Rows are laid one behind the other with a gap, so that a sorted search finds the runs of the next row.
    rows, reach = runs[:, 0] * (width + 2), int(corners)
    below = rows + width + 2
    first = np.searchsorted(rows + runs[:, 2], below + runs[:, 1] - reach, side="right")
    after = np.searchsorted(rows + runs[:, 1], below + runs[:, 2] + reach, side="left")
    counts = after - first
    upper = np.repeat(np.arange(len(runs)), counts)
    lower = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    return np.stack([upper, lower], 1)


def _joined(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(count,) the number from 0 of the component of each of so many things, of which pairs (m, 2) are connected.

    Components are numbered in the order of their first things. Each takes the lowest number that its partners know,
    until all agree (Shiloach and Vishkin, Journal of Algorithms 1982). scipy has the same, and takes longer to import.
    """
    lowest = np.arange(count)
    while len(pairs):
        known = lowest[pairs]
        apart = known[:, 0] != known[:, 1]
        pairs, known = pairs[apart], known[apart]
        np.minimum.at(lowest, known.max(1), known.min(1))
        while not np.array_equal(lowest, further := lowest[lowest]):
            lowest = further
    numbers: NDArray[np.int64] = (np.cumsum(lowest == np.arange(count)) - 1)[lowest]
    return numbers


def _drawn(runs: NDArray[np.int64], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (h, w) of runs."""
    rows, left, right = runs.T
    turns = np.zeros((size_hw[0], size_hw[1] + 1), np.int8)
    turns[rows, left] += 1
    turns[rows, right] -= 1
    return np.cumsum(turns, axis=1, dtype=np.int8, out=turns)[:, :-1].view(np.bool_)


def _basins(components: Sequence[Component], score: NDArray[np.float32] | None, least: float) -> Iterator[Component]:
    """Components split into the basins of their peaks, each of at least so many pixels; score: (h, w) of the image."""
    # Imported here, since most runs split nothing.
    from scipy.ndimage import distance_transform_edt, find_objects
    from skimage.measure import label
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    rows, columns = reduce(around, (place for place, _ in components))
    corner = rows.start - 1, columns.start - 1  # a rim of one pixel: the image's border is a rim like any other
    owner = np.zeros((rows.stop - corner[0] + 1, columns.stop - corner[1] + 1), np.int32)
    for number, (place, crop) in enumerate(components, start=1):
        owner[_moved(place, corner, -1)][crop] = number
    inside = owner > 0
    height = distance_transform_edt(inside)
    if score is not None:
        height[1:-1, 1:-1] *= np.clip(score[rows, columns], 0.01, 1)
    # Reconstruction from lowered peaks: peaks with a shallow saddle between them become one plateau.
    peaks = local_maxima(reconstruction(_SADDLE * height, height), allow_borders=True) & inside
    markers = label(peaks, connectivity=2)
    basins = watershed(-height, markers, mask=inside, connectivity=2)
    areas = np.bincount(basins.ravel())[1:]
    owners = np.zeros(len(areas) + 1, np.int32)
    owners[basins.ravel()] = owner.ravel()
    if (areas < least).any():
        kept = _large_enough(areas, owners[1:], least)
        basins = watershed(-height, np.where(np.append(False, kept)[markers], markers, 0), mask=inside, connectivity=2)
    parts = [(owners[index], index, place) for index, place in enumerate(find_objects(basins), start=1) if place]
    for _, index, place in sorted(parts, key=lambda part: part[:2]):
        yield _moved(place, corner, 1), basins[place] == index


def _large_enough(areas: NDArray[np.int64], owners: NDArray[np.int32], least: float) -> NDArray[np.bool_]:
    """(n,) which basins are kept: those of enough pixels, and of a component without any its largest, the first one."""
    kept: NDArray[np.bool_] = areas >= least
    order = np.lexsort((np.arange(len(areas)), -areas, owners))
    first = order[np.append(True, np.diff(owners[order]) > 0)]
    kept[first] = True
    return kept


def _moved(place: Box, by: tuple[int, int], sign: int) -> Box:
    rows, columns = (slice(s.start + sign * d, s.stop + sign * d) for s, d in zip(place, by, strict=True))
    return rows, columns


def count_components(mask: NDArray[np.uint8]) -> dict[int, int]:
    """{label: number of 8-connected components} of a label map (h, w)."""
    strips = StripComponents()
    strips.add(mask)
    table = strips.join()
    return table.counts(table.areas > 0)


@dataclass(frozen=True)
class ComponentTable:
    """The components of a label map, n of them."""

    labels: NDArray[np.int64]
    """(n,) from 1."""
    areas: NDArray[np.int64]
    """(n,) pixels."""
    score_sums: NDArray[np.float64]
    """(n,) sum of the scores of their pixels."""
    pieces: NDArray[np.int64]
    """Of each piece, as `StripComponents` numbers them, the component that it belongs to."""

    def passing(self, least_pixels: float, min_score: float) -> NDArray[np.bool_]:
        """(n,) whether a component has the area and the mean score."""
        return (self.areas >= least_pixels) & (self.score_sums >= min_score * self.areas)

    def counts(self, kept: NDArray[np.bool_]) -> dict[int, int]:
        """{label: how many of its components are kept}."""
        labels, counts = np.unique(self.labels[kept], return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))


class StripComponents:
    """Finds the 8-connected components of a label map that comes in strips of rows, from the top.

    A component is in pieces, one or more in each strip that it lies in. Memory grows with the pieces, not the pixels.
    """

    def __init__(self) -> None:
        # By strip: how many pieces came before, and of its pieces, which are numbered from 0 over all strips, the
        # labels, areas and sums of scores.
        self._before: list[int] = []
        self._labels, self._areas = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        self._sums = [np.zeros(0)]
        self._links = [np.zeros((0, 2), np.int64)]
        self._last = _Pieces.of(np.zeros((0, 1), np.uint8))  # of the last row so far, numbered over all strips
        self._count = 0

    def add(self, strip: NDArray[np.uint8], scores: NDArray[np.float32] | None = None) -> None:
        """Take the next rows (r, w) of labels, and the score of each pixel's own label; all strips have one width."""
        pieces = _Pieces.of(strip)
        count, (rows, left, right) = pieces.count, pieces.runs.T
        labels = np.zeros(count, np.int64)
        labels[pieces.numbers] = pieces.labels  # all runs of a piece have one label
        self._labels.append(labels)
        self._areas.append(np.bincount(pieces.numbers, right - left, count).astype(np.int64))
        begins = rows * strip.shape[1]
        of_runs = np.zeros(len(rows)) if scores is None else _sums(scores.ravel(), begins + left, begins + right)
        self._sums.append(np.bincount(pieces.numbers, of_runs, count).astype(np.float64))
        pieces = pieces.renumbered(self._count)
        self._links.append(self._last.meeting(pieces.of_row(0), strip.shape[1]))
        self._last = pieces.of_row(len(strip) - 1)
        self._before.append(self._count)
        self._count += count

    def join(self) -> ComponentTable:
        """The components of all rows so far."""
        whole = _joined(np.concatenate(self._links), self._count)
        count = int(whole.max(initial=-1)) + 1
        labels = np.zeros(count, np.int64)
        labels[whole] = np.concatenate(self._labels)
        areas = np.bincount(whole, np.concatenate(self._areas), count).astype(np.int64)
        sums = np.bincount(whole, np.concatenate(self._sums), count).astype(np.float64)
        return ComponentTable(labels, areas, sums, whole)

    def sieve(
        self, strips: Iterable[NDArray[np.uint8]], table: ComponentTable, kept: NDArray[np.bool_]
    ) -> Iterator[NDArray[np.uint8]]:
        """The same strips again, where the pixels of components that are not kept are background; kept: (n,)."""
        goes = ~kept[table.pieces]
        for strip, before in zip(strips, self._before, strict=True):
            pieces = _Pieces.of(strip)
            runs = pieces.runs[goes[pieces.numbers + before]]
            yield np.where(_drawn(runs, strip.shape), np.uint8(0), strip) if len(runs) else strip


@dataclass(frozen=True)
class _Pieces:
    """The n runs of a strip (r, w) of labels, and the components that they make in it."""

    runs: NDArray[np.int64]
    """(n, 3) row, first column and next column."""
    labels: NDArray[np.uint8]
    """(n,) from 1."""
    numbers: NDArray[np.int64]
    """(n,) of components."""

    @classmethod
    def of(cls, strip: NDArray[np.uint8]) -> Self:
        runs = _runs(strip)
        labels = strip[runs[:, 0], runs[:, 1]]
        pairs = _touching(runs, strip.shape[1], corners=True)
        return cls(runs, labels, _joined(pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]], len(runs)))

    @property
    def count(self) -> int:
        """How many components."""
        return int(self.numbers.max(initial=-1)) + 1

    def renumbered(self, before: int) -> Self:
        """With numbers that begin after so many."""
        return replace(self, numbers=self.numbers + before)

    def of_row(self, row: int) -> Self:
        """Those of one row."""
        own = self.runs[:, 0] == row
        return replace(self, runs=self.runs[own], labels=self.labels[own], numbers=self.numbers[own])

    def meeting(self, below: Self, width: int) -> NDArray[np.int64]:
        """(m, 2) numbers of components of one label that touch, also at a corner, where two rows meet."""
        runs = np.concatenate([self.runs, below.runs])
        runs[:, 0] = np.repeat([0, 1], [len(self.runs), len(below.runs)])
        labels, numbers = (
            np.concatenate(both) for both in ((self.labels, below.labels), (self.numbers, below.numbers))
        )
        pairs = _touching(runs, width, corners=True)
        return np.unique(numbers[pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]]], axis=0)


def _sums(values: NDArray[np.float32], first: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) sums of values (m,) from `first` to before `after`, each (n,) and ascending."""
    bounds = np.stack([first, after], 1).ravel()
    bounds = bounds[:-1] if len(bounds) and bounds[-1] == len(values) else bounds
    sums: NDArray[np.float64] = np.add.reduceat(values, bounds, dtype=np.float64)[::2] if len(bounds) else np.zeros(0)
    return sums
