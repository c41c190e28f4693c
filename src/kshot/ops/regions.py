"""Connected parts of label maps, and how well a region fits scores."""

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import label
from torch import Tensor
from torch.nn import functional as F


def count_regions(mask: NDArray[np.uint8], smallest: int = 16) -> dict[int, int]:
    """{label: connected parts of at least `smallest` pixels} of a label map (h, w), 8-connected."""
    parts = label(mask, background=0, connectivity=2)
    sizes = np.bincount(parts.ravel())
    numbers, first = np.unique(parts, return_index=True)  # 0 is not among them where there is no background
    labels = mask.ravel()[first]  # one label per part
    found = [int(name) for number, name in zip(numbers, labels, strict=True) if number and sizes[number] >= smallest]
    return {name: found.count(name) for name in sorted(set(found))}


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
