"""Connected components of masks, and instances: components, or watershed basins where objects touch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.sparse import coo_array, csgraph
from skimage.measure import label

from kshot.errors import SettingError

METHODS = ("components", "watershed")
# Two peaks are two objects where the saddle between them is lower than this fraction of the lower peak. Three quarters
# separate discs that overlap by a fifth of their width, and keep an ellipse of 1 : 2, or a ragged outline, whole.
_SADDLE = 0.75
_AT_ONCE = 2**22  # pixels that are scanned at once
Component = tuple[tuple[slice, slice], NDArray[np.bool_]]


def check_method(method: str) -> None:
    """Raise `SettingError` for a name that is not one of `METHODS`."""
    if method not in METHODS:
        raise SettingError(f"instances (--instances) {method!r}: choices: {', '.join(METHODS)}")


def split(
    mask: NDArray[np.bool_], score: NDArray[np.float32] | None = None, method: str = "components"
) -> Iterator[Component]:
    """The instances of a mask (h, w), each as its box and its mask there; disjoint, and together the mask.

    method: "components" for the 8-connected components; "watershed" also splits them where the distance to their rim,
    times the score (h, w) in 0..1 if given, dips between two peaks. In the order of their first pixels. Raises
    `SettingError` for another method.
    """
    check_method(method)
    for place, inside in connected_components(mask):
        if method == "watershed":
            yield from _basins(place, inside, None if score is None else score[place])
        else:
            yield place, inside


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


def _basins(
    place: tuple[slice, slice], component: NDArray[np.bool_], score: NDArray[np.float32] | None
) -> Iterator[Component]:
    """One component split into the basins of its peaks; score: in the component's box."""
    inside = np.pad(component, 1)  # the image's border is a rim like any other
    # Imported here, since most runs split nothing.
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    height = distance_transform_edt(inside)
    if score is not None:
        height *= np.pad(np.clip(score, 0.01, 1), 1)
    # Reconstruction from lowered peaks: peaks with a shallow saddle between them become one plateau.
    peaks = local_maxima(reconstruction(_SADDLE * height, height), allow_borders=True) & inside
    basins = watershed(-height, label(peaks, connectivity=2), mask=inside, connectivity=2)
    basins = np.where(inside & (basins == 0), basins.max() + 1, basins)[1:-1, 1:-1]
    for index, found in enumerate(find_objects(basins), start=1):
        if found is not None:
            rows, columns = (slice(f.start + p.start, f.stop + p.start) for f, p in zip(found, place, strict=True))
            yield (rows, columns), basins[found] == index


def count_components(mask: NDArray[np.uint8], smallest: int = 16) -> dict[int, int]:
    """{label: number of 8-connected components of at least `smallest` pixels} of a label map (h, w)."""
    counter = ComponentCounter(smallest)
    counter.add(mask)
    return counter.counts()


class ComponentCounter:
    """`count_components` of a label map that comes in strips of rows, from the top, in the memory of one strip."""

    def __init__(self, smallest: int = 16):
        self.smallest = smallest
        self.closed: dict[int, int] = {}
        # Components that touch the last row, numbered from 1: the number at each column, and their sizes and labels.
        self.row = np.zeros(0, np.int64)
        self.sizes, self.labels = np.zeros(1, np.int64), np.zeros(1, np.int64)

    def add(self, strip: NDArray[np.uint8]) -> None:
        """Count the next rows (r, w); all strips have the same width."""
        numbers = label(strip, background=0, connectivity=2)  # (r, w)
        own = np.bincount(numbers.ravel())
        labels = np.zeros(len(own), np.int64)
        labels[numbers.ravel()] = strip.ravel()  # all pixels of a component have one label
        before = len(self.sizes) - 1
        sizes = np.concatenate([self.sizes, own[1:]])
        names = np.concatenate([self.labels, labels[1:]])
        top = np.where(numbers[0] > 0, numbers[0] + before, 0)
        whole = _joined(self.row, top, names)
        sizes, names = np.bincount(whole, sizes).astype(np.int64), _first_of(names, whole)
        last = whole[np.where(numbers[-1] > 0, numbers[-1] + before, 0)]
        unfinished = np.unique(last[last > 0])
        self._close(np.delete(sizes, [0, *unfinished]), np.delete(names, [0, *unfinished]))
        renumbered = np.zeros(len(sizes), np.int64)
        renumbered[unfinished] = np.arange(1, len(unfinished) + 1)
        self.row = renumbered[last]
        self.sizes, self.labels = np.append(0, sizes[unfinished]), np.append(0, names[unfinished])

    def counts(self) -> dict[int, int]:
        """{label: components} of all rows so far; rows that are added later start new components."""
        self._close(self.sizes[1:], self.labels[1:])
        self.row, self.sizes, self.labels = self.row * 0, self.sizes[:1], self.labels[:1]
        return {name: self.closed[name] for name in sorted(self.closed)}

    def _close(self, sizes: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        for name in labels[sizes >= self.smallest].tolist():
            self.closed[name] = self.closed.get(name, 0) + 1


def _joined(above: NDArray[np.int64], below: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each component, from 0 (background), the number of the one it is joined to where two rows meet; 0 stays 0."""
    pairs = [np.zeros((0, 2), np.int64)]
    if len(above):
        near = ((above, below), (above[1:], below[:-1]), (above[:-1], below[1:]))
        pairs += [np.stack([up, down], 1) for up, down in near]
    met = np.unique(np.concatenate(pairs), axis=0)
    met = met[(met > 0).all(1) & (labels[met[:, 0]] == labels[met[:, 1]])]
    links = coo_array((np.ones(len(met), np.int8), (met[:, 0], met[:, 1])), shape=(len(labels), len(labels)))
    # The background is linked to no component, so it stays alone, and the first.
    whole: NDArray[np.int64] = csgraph.connected_components(links, directed=False)[1].astype(np.int64)
    return whole


def _first_of(values: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """One value of each group."""
    found = np.zeros(int(groups.max()) + 1, np.int64)
    found[groups] = values
    return found
