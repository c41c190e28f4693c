"""Objects of a class mask: its connected parts, or watershed basins where parts touch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.sparse import coo_array, csgraph
from skimage.measure import label

from kshot.errors import SettingError

METHODS = ("components", "watershed")
# Two tops are two objects when the saddle between them is lower than this share of the lower top: three quarters part
# discs that overlap by a fifth of their width, and keep an ellipse of one to two, or a ragged outline, in one.
_SADDLE = 0.75
_AT_ONCE = 2**22  # pixels that are looked through at once
Piece = tuple[tuple[slice, slice], NDArray[np.bool_]]


def check_method(method: str) -> None:
    """Raise `SettingError` for a name that is not one of `METHODS`."""
    if method not in METHODS:
        raise SettingError(f"instances (--instances) {method!r}: choices: {', '.join(METHODS)}")


def split(
    mask: NDArray[np.bool_], score: NDArray[np.float32] | None = None, method: str = "components"
) -> Iterator[Piece]:
    """The objects of a mask (h, w), each as its place and its mask there; disjoint, and together the mask.

    components: 8-connected parts. watershed: parts are also cut where the distance to their rim, times the score
    (h, w) in 0..1 when it is given, dips between two tops. In the order of their first pixels.
    Raises `SettingError` for another method.
    """
    check_method(method)
    for place, inside in connected_components(mask):
        if method == "watershed":
            yield from _basins(place, inside, None if score is None else score[place])
        else:
            yield place, inside


def connected_components(mask: NDArray[np.bool_], *, corners: bool = True) -> Iterator[Piece]:
    """The connected parts of a mask (h, w), each as its place and its mask there, in the order of their first pixels.

    corners: whether pixels that touch at a corner are connected. Memory grows with the runs of the rows and with the
    largest part, not with the pixels, which numbers for all of them would.
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
    """Which runs (n, n) touch one of the next row."""
    # Rows one behind the other, with room between them: the runs below are found in one sorted line.
    rows, reach = runs[:, 0] * (width + 2), int(corners)
    below = rows + width + 2
    first = np.searchsorted(rows + runs[:, 2], below + runs[:, 1] - reach, side="right")
    after = np.searchsorted(rows + runs[:, 1], below + runs[:, 2] + reach, side="left")
    counts = after - first
    upper = np.repeat(np.arange(len(runs)), counts)
    lower = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    return coo_array((np.ones(len(upper), np.int8), (upper, lower)), shape=(len(runs), len(runs)))


def _basins(place: tuple[slice, slice], part: NDArray[np.bool_], score: NDArray[np.float32] | None) -> Iterator[Piece]:
    """One connected part cut into the basins of its tops; score: of the part's box."""
    inside = np.pad(part, 1)  # the picture's rim is a rim like any other
    # Imported here, as most runs cut nothing.
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    height = distance_transform_edt(inside)
    if score is not None:
        height *= np.pad(np.clip(score, 0.01, 1), 1)
    # Lowered tops flooded under the surface: those that a shallow saddle joins become one plateau.
    tops = local_maxima(reconstruction(_SADDLE * height, height), allow_borders=True) & inside
    basins = watershed(-height, label(tops, connectivity=2), mask=inside, connectivity=2)
    basins = np.where(inside & (basins == 0), basins.max() + 1, basins)[1:-1, 1:-1]
    for index, found in enumerate(find_objects(basins), start=1):
        if found is not None:
            rows, columns = (slice(f.start + p.start, f.stop + p.start) for f, p in zip(found, place, strict=True))
            yield (rows, columns), basins[found] == index
