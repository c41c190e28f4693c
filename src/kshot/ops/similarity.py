"""Similarities between patch tokens, in blocks that bound the memory.

Where the features themselves were computed in bfloat16, so may be their products, on processors with matrix units
(`reduced_products`); else they are float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from kshot.ops.processor import has_matrix_units

# Queries at a time: with 20,000 support tokens a block of cosines takes 80 MB.
_BLOCK = 1024
DENSITY_FLOOR = 1e-12  # kernel densities far from all supports are this small
_reduced: ContextVar[bool] = ContextVar("reduced", default=False)


def vmf_means(queries: Tensor, supports: Tensor, weights: Tensor, kappa: float) -> Tensor:
    """Weighted mean von Mises-Fisher kernel exp(kappa (cos - 1)) of queries (q, c) over supports (n, c): (q, k).

    weights: (n, k) non-negative; a column that is all zero gives zero. Queries and supports are of unit length.
    """
    total, supports = weights.sum(0).clamp(min=1e-6), for_products(supports)
    blocks = (cosines_less_one(rows, supports, kappa) for rows in queries.split(_BLOCK))
    return torch.cat([block.exp_() @ weights for block in blocks]) / total


def cosines(queries: Tensor, supports: Tensor, block: int = _BLOCK) -> Iterator[Tensor]:
    """Cosines of queries (q, c) with supports (n, c), in blocks of rows (<= block, n)."""
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        yield cosines_less_one(rows, supports).add_(1) if _reduced.get() else rows.float() @ supports.float().T


def cosines_less_one(queries: Tensor, supports: Tensor, factor: float = 1.0) -> Tensor:
    """(q, n) cosines of queries (q, c) with supports (n, c), less one, times a factor.

    The nearer to each other, the more exact.
    """
    if not _reduced.get():
        found = (queries.float() @ supports.float().T).sub_(1)
        return found if factor == 1 else found.mul_(factor)
    # Taken off before the result is rounded to bfloat16, which is the finer, the nearer to zero.
    one = torch.ones(1, dtype=torch.bfloat16)
    return torch.addmm(one, queries.bfloat16(), supports.bfloat16().T, beta=-factor, alpha=factor).float()


def for_products(tokens: Tensor) -> Tensor:
    """Tokens (n, c) as products want them, converted once: those of supports meet every query, and a query many."""
    return tokens.bfloat16() if _reduced.get() else tokens.contiguous()


@contextmanager
def reduced_products(allowed: bool) -> Iterator[None]:
    """Within it, and in this thread, products of patch tokens are in bfloat16 if `allowed` and this processor gains."""
    token = _reduced.set(allowed and has_matrix_units())
    try:
        yield
    finally:
        _reduced.reset(token)
