"""Objects of a class mask: its connected parts, or watershed basins where parts touch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from kshot.errors import SettingError

METHODS = ("components", "watershed")
# Two tops are two objects when the saddle between them is lower than this share of the lower top: three quarters part
# discs that overlap by a fifth of their width, and keep an ellipse of one to two, or a ragged outline, in one.
_SADDLE = 0.75


def split(
    mask: NDArray[np.bool_], score: NDArray[np.float32] | None = None, method: str = "components"
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.bool_]]]:
    """The objects of a mask (h, w), each as its place and its mask there; disjoint, and together the mask.

    components: 8-connected parts. watershed: parts are also cut where the distance to their rim, times the score
    (h, w) in 0..1 when it is given, dips between two tops. In the order of their first pixels.
    Raises `SettingError` for another method.
    """
    if method not in METHODS:
        raise SettingError(f"--instances {method}: choices: {', '.join(METHODS)}")
    parts = label(mask, connectivity=2)
    if method == "watershed":
        parts = _cut(parts, score)
    for index, place in enumerate(find_objects(parts), start=1):
        if place is not None:
            yield place, parts[place] == index


def _cut(parts: NDArray[np.int64], score: NDArray[np.float32] | None) -> NDArray[np.int64]:
    """Each part cut into the basins of its tops; numbered from 1."""
    cut = np.zeros(parts.shape, np.int64)
    for index, place in enumerate(find_objects(parts), start=1):
        inside = np.pad(parts[place] == index, 1)  # the picture's rim is a rim like any other
        height = distance_transform_edt(inside)
        if score is not None:
            height *= np.pad(np.clip(score[place], 0.01, 1), 1)
        # Lowered tops flooded under the surface: those that a shallow saddle joins become one plateau.
        tops = local_maxima(reconstruction(_SADDLE * height, height), allow_borders=True) & inside
        basins = watershed(-height, label(tops, connectivity=2), mask=inside, connectivity=2)
        basins = np.where(inside & (basins == 0), basins.max() + 1, basins)[1:-1, 1:-1]
        cut[place] = np.where(basins > 0, basins + cut.max(), cut[place])
    return cut
