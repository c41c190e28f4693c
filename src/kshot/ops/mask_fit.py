"""How well a mask fits scores, and where scores peak."""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrast(scores: Tensor, mask: Tensor, weights: Tensor) -> float:
    """Correlation, in -1..1, of logits (gh, gw) with a mask (gh, gw) in 0..1: how well it separates high from low ones.

    The difference of means between inside and outside would favour tiny masks on a peak. The point-biserial correlation
    divides it by the standard deviation and weighs it by the sizes of both sides. Logits are squashed first, so that
    large ones count alike. weights: (gh, gw) how much each patch counts. An empty or full mask gives 0.
    """
    weights = weights / weights.sum()
    confidence, shown = torch.tanh(scores / 2), mask.to(scores)
    confidence, shown = confidence - (weights * confidence).sum(), shown - (weights * shown).sum()
    spread = (weights * confidence**2).sum() * (weights * shown**2).sum()
    return float((weights * confidence * shown).sum() / spread.sqrt()) if float(spread) > 1e-12 else 0.0


def peaks(scores: Tensor, count: int) -> Tensor:
    """(k <= count, 2) rows and columns of the highest finite local maxima of scores (gh, gw), highest first."""
    highest = F.max_pool2d(scores[None, None], 3, 1, 1)[0, 0]
    tops = torch.where((scores >= highest) & scores.isfinite(), scores, -torch.inf).flatten()
    best = tops.topk(min(count, int(tops.isfinite().sum())))
    return torch.stack([best.indices // scores.shape[1], best.indices % scores.shape[1]], 1)
