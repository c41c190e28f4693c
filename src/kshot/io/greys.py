"""Whether the greys of a mask are a drawing with soft edges, or numbers of classes or objects."""

import numpy as np
from numpy.typing import NDArray


def is_soft(greys: NDArray[np.integer]) -> bool:
    """Whether greys (h, w) are an area that was drawn with soft edges, rather than labels.

    They are when there are at least three besides 0 and the brightest, the brightest is at least three quarters of
    white, and most of them are slopes: more than half of the pixels of such a grey have both a darker and a brighter
    neighbour, and are in no patch of 2 x 2 equal pixels. Objects and classes are flat.
    """
    brightest = int(greys.max())
    if brightest < 0.75 * np.iinfo(greys.dtype).max:
        return False
    between = (greys > 0) & (greys < brightest)
    levels, place = np.unique(greys[between], return_inverse=True)
    if len(levels) < 3:
        return False
    from scipy.ndimage import maximum_filter, minimum_filter  # slow to import, and seldom needed

    flat = maximum_filter(minimum_filter(greys, 2) == maximum_filter(greys, 2), 2, origin=-1)
    slope = (minimum_filter(greys, 3) < greys) & (greys < maximum_filter(greys, 3)) & ~flat
    share = np.bincount(place, slope[between]) / np.bincount(place)
    return bool((share > 0.5).mean() > 0.5)
