"""The labelled patch tokens of all supports side by side, from which most methods start."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.methods.base import Support
from kshot.ops.geometry import FeatureMap, coverage
from kshot.ops.pooling import stack_tokens
from kshot.ops.similarity import DENSITY_FLOOR, vmf_means

_FLOOR = 1e-6


class SupportTokens(NamedTuple):
    """Patch tokens with their labels."""

    tokens: Tensor
    """(n, c) of unit length; shorter where one stands for several."""
    labels: Tensor
    """(n, N+1) how much of each patch shows what; column 0 is the background shared by all supports."""


def stack_supports(supports: Sequence[Support]) -> SupportTokens:
    """The patch tokens of all supports, without those of which nothing is labelled."""
    tokens = torch.cat([support.features.tokens for support in supports])
    classes = stack_tokens([support.masks for support in supports])  # (N, n)
    background = stack_tokens([support.background for support in supports])  # (n,)
    labels = torch.cat([background[None], classes]).T
    kept = labels.sum(1) > 0
    return SupportTokens(tokens[kept], labels[kept].contiguous())


def log_ratios(shares: Tensor, floor: float = _FLOOR) -> Tensor:
    """Logarithms of shares (..., N+1), at least `floor` each, less that of the background, column 0."""
    logs = shares.clamp(min=floor).log()
    return logs - logs[..., :1]


def base_rates(labels: Tensor) -> Tensor:
    """(N+1,) the fraction of the labels (n, N+1) that the background and each class make up."""
    return (labels.sum(0) / labels.sum()).clamp(min=_FLOOR)


def soft_ious(found: Tensor, mask: Tensor, valid_mask: Tensor) -> Tensor:
    """IoU (...) of binary masks (..., n) with a soft mask (n,) over the labelled fraction (n,) of each patch."""
    shared = found @ mask
    return shared / (found @ valid_mask + mask.sum() - shared).clamp(min=_FLOOR)


def top_k_log_ratio(
    supports: SupportTokens, features: FeatureMap, logits: Tensor, way: int, fraction: float, kappa: float
) -> Tensor:
    """() mean log-likelihood ratio of class `way` to everything else, over its best `fraction` of the image's patches.

    Likelihoods are kernel densities of the supports' tokens. Only patches near the top by `logits` (N+1, gh, gw) are
    compared, which keeps it cheap.
    """
    tokens, labels, plane = features.tokens, supports.labels, logits[way + 1]
    count = max(1, round(fraction * float(coverage(features.frame).sum())))
    likely = plane.flatten().topk(min(4 * count, plane.numel())).indices
    sides = torch.stack([labels.sum(1) - labels[:, way + 1], labels[:, way + 1]], 1)
    ratios = log_ratios(vmf_means(tokens[likely], supports.tokens, sides, kappa), DENSITY_FLOOR)[:, 1]
    return ratios.topk(min(count, len(ratios))).values.mean()
