"""Groups of similar tokens: mixtures by expectation maximisation, and average linkage.

The order of the tokens, and so of the supports, changes nothing but rounding.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-6


class Mixture(NamedTuple):
    """The result of `vmf_mixture`."""

    means: Tensor
    """(k, c) of unit length."""
    log_likelihood: Tensor
    """(steps + 1,) mean over the tokens, before each step and at the end, without the kernel's normalisation."""


def vmf_mixture(tokens: Tensor, weights: Tensor, components: int, kappa: float, steps: int) -> Mixture:
    """Fit a mixture of equal von Mises-Fisher components to tokens (n, c) under weights (n,), not all zero.

    Expectation maximisation with a fixed concentration `kappa` (Banerjee et al., JMLR 2005, section 3). There are at
    most as many components as tokens with a weight.
    """
    kept = weights > 0
    tokens, weights = tokens[kept], weights[kept] / weights.sum()
    means = _quantile_means(tokens, weights, min(components, len(tokens)))
    history = []
    for _ in range(steps):
        logits = kappa * tokens @ means.T  # (n, k)
        history.append(_mean_log_likelihood(logits, weights))
        shares = logits.softmax(1) * weights[:, None]
        moved = F.normalize(shares.T @ tokens, dim=1)
        # A component whose tokens cancel out stays where it is.
        means = torch.where(moved.norm(dim=1, keepdim=True) > 0.5, moved, means)
    history.append(_mean_log_likelihood(kappa * tokens @ means.T, weights))
    return Mixture(means, torch.stack(history))


def _mean_log_likelihood(logits: Tensor, weights: Tensor) -> Tensor:
    mean: Tensor = weights @ logits.logsumexp(1) - math.log(logits.shape[1])
    return mean


def _quantile_means(tokens: Tensor, weights: Tensor, groups: int) -> Tensor:
    """(k, c): means of groups of equal weight along the direction in which tokens (n, c) vary most."""
    centred = tokens - weights @ tokens
    covariance = (centred * weights[:, None]).T @ centred
    along = centred @ torch.linalg.eigh(covariance).eigenvectors[:, -1]
    order = along.argsort()
    middle = weights[order].cumsum(0) - weights[order] / 2
    group = (middle * groups).long().clamp(max=groups - 1)
    sums = torch.zeros(groups, tokens.shape[1]).to(tokens).index_add_(0, group, (tokens * weights[:, None])[order])
    filled = torch.bincount(group, minlength=groups) > 0
    return F.normalize(sums[filled], dim=1)


def agglomerate(tokens: Tensor, distance: float, most: int) -> Tensor:
    """(n,) group numbers from 0 of tokens (n, c) of unit length, by average linkage up to a cosine distance.

    Memory grows with the square of the tokens. Of more than `most` tokens, `most` are taken evenly and linked, and the
    others join the group whose mean is nearest.
    """
    if len(tokens) == 1:
        return torch.zeros(1, dtype=torch.long)
    picked = tokens[torch.linspace(0, len(tokens) - 1, min(most, len(tokens))).round().long()]
    groups = torch.from_numpy(_linked(picked, distance))
    if len(picked) == len(tokens):
        return groups
    means = F.normalize(group_means(picked, groups), dim=1)
    return torch.cat([(rows @ means.T).argmax(1) for rows in tokens.split(1024)])


def group_means(values: Tensor, groups: Tensor, weights: Tensor | None = None) -> Tensor:
    """(k, d) weighted means of values (n, d) over groups (n,) numbered 0..k-1."""
    if weights is None:
        weights = torch.ones(len(values)).to(values)
    count = int(groups.max()) + 1
    totals = torch.zeros(count).to(values).index_add_(0, groups, weights)
    sums = torch.zeros(count, values.shape[1]).to(values).index_add_(0, groups, values * weights[:, None])
    return sums / totals.clamp(min=_TINY)[:, None]


def _linked(tokens: Tensor, distance: float) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    cosine = tokens @ tokens.T
    rows, columns = np.triu_indices(len(tokens), 1)
    apart = (1 - cosine.numpy()[rows, columns]).clip(min=0)
    groups: np.ndarray[tuple[int], np.dtype[np.int64]] = fcluster(linkage(apart, "average"), distance, "distance")
    return groups.astype(np.int64) - 1
