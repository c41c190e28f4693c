"""Averages of features under soft masks."""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_average(tokens: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of tokens (n, c) under weights (..., n), at unit length: (..., c).

    Masked average pooling, SG-One (Zhang et al., 2018) and PANet (Wang et al., ICCV 2019, section 3.3). Rows whose
    weights are all zero give the zero vector.
    """
    return F.normalize(weights @ tokens, dim=-1)


def stack_tokens(maps: list[Tensor]) -> Tensor:
    """Concatenate planes (..., gh, gw) of different grids into (..., n)."""
    return torch.cat([planes.flatten(-2) for planes in maps], -1)


def token_sums(tokens: Tensor) -> Tensor:
    """(n,) float64 sum over the channels of tokens (n, c): an order among them that no list of images changes."""
    return tokens.sum(1, dtype=torch.float64)
