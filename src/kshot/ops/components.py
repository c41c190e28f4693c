"""Connected components of masks, and instances: components, or watershed basins where objects touch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.sparse import coo_array, csgraph

from kshot.errors import SettingError
from kshot.ops.object_shapes import ObjectShape, split_by_shape

METHODS = ("components", "watershed", "learned")
# Two peaks are two objects where the saddle between them is lower than this fraction of the lower peak. Three quarters
# separate discs that overlap by a fifth of their width, and keep an ellipse of 1 : 2, or a ragged outline, whole.
_SADDLE = 0.75
_AT_ONCE = 2**22  # pixels that are scanned at once
_TOGETHER = 2**20  # pixels of a box whose components are taken apart in one go
Box = tuple[slice, slice]
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
            for crop in split_by_shape(inside, None if score is None else score[place], shape):
                yield _cropped(place, crop)
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
        wider = _around(box, component[0]) if group else component[0]
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
    whole = csgraph.connected_components(_touching(runs, mask.shape[1], corners), directed=False)[1]
    order = np.argsort(whole, kind="stable")
    for own in np.split(runs[order], np.flatnonzero(np.diff(whole[order])) + 1):
        rows, left, right = own.T
        top, start, stop = int(rows[0]), int(left.min()), int(right.max())
        place = slice(top, int(rows[-1]) + 1), slice(start, stop)
        turns = np.zeros((place[0].stop - top, stop - start + 1), np.int8)
        turns[rows - top, left - start] = 1
        turns[rows - top, right - start] = -1
        yield place, np.cumsum(turns, axis=1, dtype=np.int8, out=turns)[:, :-1].view(np.bool_)


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n, 3) row, first column and next column of the runs of marked pixels, row by row."""
    step, found = max(1, _AT_ONCE // mask.shape[1]), [np.zeros((0, 3), np.int64)]
    for top in range(0, len(mask), step):
        turns = np.diff(np.pad(mask[top : top + step], ((0, 0), (1, 1))).view(np.int8), axis=1)
        first, after = np.argwhere(turns == 1), np.argwhere(turns == -1)
        found.append(np.column_stack([first[:, 0] + top, first[:, 1], after[:, 1]]))
    return np.concatenate(found)


def _touching(runs: NDArray[np.int64], width: int, corners: bool) -> coo_array:
    """(n, n) sparse matrix, 1 where a run touches a run of the next row."""
    # Rows are laid one behind the other with a gap, so that a sorted search finds the runs of the next row.
    rows, reach = runs[:, 0] * (width + 2), int(corners)
    below = rows + width + 2
    first = np.searchsorted(rows + runs[:, 2], below + runs[:, 1] - reach, side="right")
    after = np.searchsorted(rows + runs[:, 1], below + runs[:, 2] + reach, side="left")
    counts = after - first
    upper = np.repeat(np.arange(len(runs)), counts)
    lower = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    return coo_array((np.ones(len(upper), np.int8), (upper, lower)), shape=(len(runs), len(runs)))


def _basins(components: Sequence[Component], score: NDArray[np.float32] | None, least: float) -> Iterator[Component]:
    """Components split into the basins of their peaks, each of at least so many pixels; score: (h, w) of the image."""
    # Imported here, since most runs split nothing.
    from skimage.measure import label
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    rows, columns = reduce(_around, (place for place, _ in components))
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


def _cropped(place: Box, mask: NDArray[np.bool_]) -> Component:
    """A mask in a box as its own smaller box."""
    (own,) = find_objects(mask.view(np.uint8))
    return _moved(own, (place[0].start, place[1].start), 1), mask[own]


def _large_enough(areas: NDArray[np.int64], owners: NDArray[np.int32], least: float) -> NDArray[np.bool_]:
    """(n,) which basins are kept: those of enough pixels, and of a component without any its largest, the first one."""
    kept: NDArray[np.bool_] = areas >= least
    order = np.lexsort((np.arange(len(areas)), -areas, owners))
    first = order[np.append(True, np.diff(owners[order]) > 0)]
    kept[first] = True
    return kept


def _around(first: Box, second: Box) -> Box:
    """The smallest box around two."""
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    return rows, columns


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
    """Of each piece, as `StripComponents` numbers them, the component that it belongs to; -1 for background."""

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
        # By strip: how many pieces came before, and of its pieces, which are numbered from 1 over all strips, the
        # labels, areas and sums of scores.
        self._before: list[int] = []
        self._labels, self._areas = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        self._sums = [np.zeros(1)]
        self._links = [np.zeros((0, 2), np.int64)]
        self._row, self._row_labels = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        self._count = 0

    def add(self, strip: NDArray[np.uint8], scores: NDArray[np.float32] | None = None) -> None:
        """Take the next rows (r, w) of labels, and the score of each pixel's own label; all strips have one width."""
        from skimage.measure import label  # not at the top: fitting and predicting do without scikit-image

        numbers = label(strip, background=0, connectivity=2)  # (r, w)
        areas = np.bincount(numbers.ravel()).astype(np.int64)
        labels = np.zeros(len(areas), np.int64)
        labels[numbers.ravel()] = strip.ravel()  # all pixels of a piece have one label
        own = np.zeros(strip.size) if scores is None else scores.ravel()
        sums = np.bincount(numbers.ravel(), own).astype(np.float64)
        top = np.where(numbers[0] > 0, numbers[0] + self._count, 0)
        self._links += list(_meeting(self._row, self._row_labels, top, strip[0]))
        self._row, self._row_labels = np.where(numbers[-1] > 0, numbers[-1] + self._count, 0), strip[-1].copy()
        self._labels.append(labels[1:])
        self._areas.append(areas[1:])
        self._sums.append(sums[1:])
        self._before.append(self._count)
        self._count += len(areas) - 1

    def join(self) -> ComponentTable:
        """The components of all rows so far."""
        links = np.concatenate(self._links) - 1
        ones = np.ones(len(links), np.int8)
        graph = coo_array((ones, (links[:, 0], links[:, 1])), shape=(self._count, self._count))
        whole = csgraph.connected_components(graph, directed=False)[1].astype(np.int64) if self._count else links[:, 0]
        count = int(whole.max(initial=-1)) + 1
        labels = np.zeros(count, np.int64)
        labels[whole] = np.concatenate(self._labels)[1:]
        areas = np.bincount(whole, np.concatenate(self._areas)[1:], count).astype(np.int64)
        sums = np.bincount(whole, np.concatenate(self._sums)[1:], count).astype(np.float64)
        return ComponentTable(labels, areas, sums, np.append(-1, whole))

    def sieve(
        self, strips: Iterable[NDArray[np.uint8]], table: ComponentTable, kept: NDArray[np.bool_]
    ) -> Iterator[NDArray[np.uint8]]:
        """The same strips again, where the pixels of components that are not kept are background; kept: (n,)."""
        from skimage.measure import label

        stays = np.append(kept, False)[table.pieces]  # background is no component
        for strip, before in zip(strips, self._before, strict=True):
            numbers = label(strip, background=0, connectivity=2)
            yield np.where(stays[np.where(numbers > 0, numbers + before, 0)], strip, np.uint8(0))


def _meeting(
    above: NDArray[np.int64], above_labels: NDArray[np.uint8], below: NDArray[np.int64], labels: NDArray[np.uint8]
) -> Iterator[NDArray[np.int64]]:
    """(m, 2) numbers of pieces of one label that touch, also at a corner, where two rows meet."""
    if not len(above):
        return
    wide = slice(None)
    for up, down in ((wide, wide), (slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        met = (above[up] > 0) & (above_labels[up] == labels[down])
        yield np.unique(np.stack([above[up][met], below[down][met]], 1), axis=0)
