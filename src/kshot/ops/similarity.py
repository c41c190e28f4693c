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
    total = weights.sum(0).clamp(min=1e-6)
    blocks = cosines_less_one(queries, for_products(supports), kappa)
    return torch.cat([weighted(block.exp_(), weights) for block in blocks]) / total


def weighted(kernel: Tensor, values: Tensor) -> Tensor:
    """(q, k) float32: values (n, k) under a kernel (q, n) of the precision that products have."""
    return (kernel @ values.to(kernel.dtype)).float()


def cosines(queries: Tensor, supports: Tensor, block: int = _BLOCK) -> Iterator[Tensor]:
    """Cosines of queries (q, c) with supports (n, c), in float32 blocks of rows (<= block, n)."""
    for found in cosines_less_one(queries, supports, block=block):
        yield found.float().add_(1)


def cosines_less_one(queries: Tensor, supports: Tensor, factor: float = 1.0, block: int = _BLOCK) -> Iterator[Tensor]:
    """Cosines of queries (q, c) with supports (n, c), less one, times a factor, in blocks of rows (<= block, n).

    In float32, or in bfloat16 where products are: the nearer to each other, the more exact.
    """
    dtype = products_dtype()
    supports, one = supports.to(dtype), torch.ones(1, dtype=dtype)
    for rows in queries.to(dtype).split(block):  # one is taken off before the result is rounded
        yield torch.addmm(one, rows, supports.T, beta=-factor, alpha=factor)


def for_products(tokens: Tensor) -> Tensor:
    """Tokens (n, c) as products want them, converted once: those of supports meet every query, and a query many."""
    return tokens.to(products_dtype()).contiguous()


def products_dtype() -> torch.dtype:
    """Of products of patch tokens, here and now: bfloat16 within `reduced_products`, else float32."""
    return torch.bfloat16 if _reduced.get() else torch.float32


@contextmanager
def reduced_products(allowed: bool) -> Iterator[None]:
    """Within it, and in this thread, products of patch tokens are in bfloat16 if `allowed` and this processor gains."""
    token = _reduced.set(allowed and has_matrix_units())
    try:
        yield
    finally:
        _reduced.reset(token)
