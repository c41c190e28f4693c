"""Connected parts of label maps."""

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label


def count_regions(mask: NDArray[np.uint8], smallest: int = 16) -> dict[int, int]:
    """{label: connected parts of at least `smallest` pixels} of a label map (h, w), 8-connected."""
    parts = label(mask, background=0, connectivity=2)
    sizes = np.bincount(parts.ravel())
    _, first = np.unique(parts, return_index=True)
    labels = mask.ravel()[first]  # one label per part, in the order of the part's number
    found = [int(labels[i]) for i in range(1, len(sizes)) if sizes[i] >= smallest]
    return {name: found.count(name) for name in sorted(set(found))}
