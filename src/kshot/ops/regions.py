"""Connected parts of label maps, and how well a region fits scores."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label
from torch import Tensor
from torch.nn import functional as F


def count_regions(mask: NDArray[np.uint8], smallest: int = 16) -> dict[int, int]:
    """{label: connected parts of at least `smallest` pixels} of a label map (h, w), 8-connected."""
    counter = RegionCounter(smallest)
    counter.add(mask)
    return counter.counts()


class RegionCounter:
    """`count_regions` of a label map that comes in strips of rows, from the top: only open parts are kept."""

    def __init__(self, smallest: int = 16):
        self.smallest = smallest
        self.closed: dict[int, int] = {}
        # Parts that touch the last row seen, from 1: that row's part at each column, and each part's size and label.
        self.row = np.zeros(0, np.int64)
        self.sizes, self.labels = np.zeros(1, np.int64), np.zeros(1, np.int64)

    def add(self, strip: NDArray[np.uint8]) -> None:
        """Count the next rows (r, w); all strips have the same width."""
        parts = label(strip, background=0, connectivity=2)  # (r, w)
        own = np.bincount(parts.ravel())
        labels = np.zeros(len(own), np.int64)
        labels[parts.ravel()] = strip.ravel()  # a part has one label, whichever of its pixels comes last
        before = len(self.sizes) - 1
        sizes = np.concatenate([self.sizes, own[1:]])
        names = np.concatenate([self.labels, labels[1:]])
        top = np.where(parts[0] > 0, parts[0] + before, 0)
        whole = _joined(self.row, top, names)
        sizes, names = np.bincount(whole, sizes).astype(np.int64), _first_of(names, whole)
        last = whole[np.where(parts[-1] > 0, parts[-1] + before, 0)]
        open_parts = np.unique(last[last > 0])
        self._close(np.delete(sizes, [0, *open_parts]), np.delete(names, [0, *open_parts]))
        numbers = np.zeros(len(sizes), np.int64)
        numbers[open_parts] = np.arange(1, len(open_parts) + 1)
        self.row = numbers[last]
        self.sizes, self.labels = np.append(0, sizes[open_parts]), np.append(0, names[open_parts])

    def counts(self) -> dict[int, int]:
        """{label: parts} of all that was added; what comes later would be parts of their own."""
        self._close(self.sizes[1:], self.labels[1:])
        self.row, self.sizes, self.labels = self.row * 0, self.sizes[:1], self.labels[:1]
        return {name: self.closed[name] for name in sorted(self.closed)}

    def _close(self, sizes: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        for name in labels[sizes >= self.smallest].tolist():
            self.closed[name] = self.closed.get(name, 0) + 1


def _joined(above: NDArray[np.int64], below: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each part, from 0 (nothing), the number of the whole that it belongs to, where two rows meet; 0 stays 0."""
    pairs = [np.zeros((0, 2), np.int64)]
    if len(above):
        near = ((above, below), (above[1:], below[:-1]), (above[:-1], below[1:]))
        pairs += [np.stack([up, down], 1) for up, down in near]
    met = np.unique(np.concatenate(pairs), axis=0)
    met = met[(met > 0).all(1) & (labels[met[:, 0]] == labels[met[:, 1]])]
    links = coo_array((np.ones(len(met), np.int8), (met[:, 0], met[:, 1])), shape=(len(labels), len(labels)))
    # Nothing is linked to nothing, so it is a whole of its own, and the first of them.
    whole: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return whole


def _first_of(values: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """One value of each group."""
    found = np.zeros(int(groups.max()) + 1, np.int64)
    found[groups] = values
    return found


def contrast(scores: Tensor, mask: Tensor, part: Tensor) -> float:
    """How well a mask (gh, gw) in 0..1 tells high scores (gh, gw) from low ones: their correlation, -1..1.

    Differences of means between inside and outside favour tiny masks on a peak; the correlation is that difference in
    standard deviations, times the root of both sides' shares (the point-biserial correlation). part: (gh, gw), how
    much each cell counts. Logits are squashed first: beyond certainty nothing is more certain. A mask of nothing, or
    of everything, has none.
    """
    weights = part / part.sum()
    sure, shown = torch.tanh(scores / 2), mask.to(scores)
    sure, shown = sure - (weights * sure).sum(), shown - (weights * shown).sum()
    spread = (weights * sure**2).sum() * (weights * shown**2).sum()
    return float((weights * sure * shown).sum() / spread.sqrt()) if float(spread) > 1e-12 else 0.0


def peaks(scores: Tensor, count: int) -> Tensor:
    """(k <= count, 2) rows and columns of the highest local maxima of finite scores (gh, gw), the highest first."""
    highest = F.max_pool2d(scores[None, None], 3, 1, 1)[0, 0]
    tops = torch.where((scores >= highest) & scores.isfinite(), scores, -torch.inf).flatten()
    best = tops.topk(min(count, int(tops.isfinite().sum())))
    return torch.stack([best.indices // scores.shape[1], best.indices % scores.shape[1]], 1)
