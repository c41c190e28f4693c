"""Similarities between patch tokens, in blocks that bound the memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

# Queries at a time: with 20,000 support tokens a block of cosines takes 80 MB.
_BLOCK = 1024
DENSITY_FLOOR = 1e-12  # kernel densities far from all supports are this small


def vmf_means(queries: Tensor, supports: Tensor, weights: Tensor, kappa: float) -> Tensor:
    """Weighted mean von Mises-Fisher kernel exp(kappa (cos - 1)) of queries (q, c) over supports (n, c): (q, k).

    weights: (n, k) non-negative; a column that is all zero gives zero. Queries and supports are of unit length.
    """
    total = weights.sum(0).clamp(min=1e-6)
    sums = [cosine.sub_(1).mul_(kappa).exp_() @ weights for cosine in cosines(queries, supports)]
    return torch.cat(sums) / total


def cosines(queries: Tensor, supports: Tensor, block: int = _BLOCK) -> Iterator[Tensor]:
    """Cosines of queries (q, c) with supports (n, c), in blocks of rows (<= block, n)."""
    for start in range(0, len(queries), block):
        yield queries[start : start + block] @ supports.T
