"""The cells of all supports side by side, which most methods start from."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.methods.base import Support
from kshot.ops.pooling import stack_tokens

FLOOR = 1e-6


class Cells(NamedTuple):
    """tokens: (n, c) of unit length, or shorter ones that stand for several.

    labels: (n, N+1), how much of each cell shows what; column 0 the background that all supports share.
    """

    tokens: Tensor
    labels: Tensor


def gather(supports: Sequence[Support]) -> Cells:
    """Cells of which anything is known."""
    tokens = torch.cat([support.features.tokens for support in supports])
    classes = stack_tokens([support.masks for support in supports])  # (N, n)
    background = stack_tokens([support.background for support in supports])  # (n,)
    labels = torch.cat([background[None], classes]).T
    kept = labels.sum(1) > 0
    return Cells(tokens[kept], labels[kept].contiguous())


def log_ratios(shares: Tensor, floor: float = FLOOR) -> Tensor:
    """(..., N+1) logarithms of non-negative shares over the background's, the first; they count as `floor` at least."""
    logs = shares.clamp(min=floor).log()
    return logs - logs[..., :1]


def soft_ious(found: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """(...) IoU of what was found (..., cells), 0 or 1, and a soft mask (cells,), where anything is known (cells,)."""
    shared = found @ mask
    return shared / (found @ known + mask.sum() - shared).clamp(min=FLOOR)


def base_rates(labels: Tensor) -> Tensor:
    """(N+1,): the part of the support cells (n, N+1) that each class and the background makes up, `FLOOR` at least."""
    return (labels.sum(0) / labels.sum()).clamp(min=FLOOR)
