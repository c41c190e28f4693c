"""Which of several competing classes are in the image: each one's score against that of its strongest competitor.

Classes that one support shows together, such as a tower and its lamp, do not exclude each other and do not compete.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kshot.methods.base import Support

# From a logistic regression over 2-way episodes of photographs: log odds of presence for each unit of a class's own
# log ratio, and the log ratio with even odds where the strongest competitor has the same.
_OWN_WEIGHT, _EVEN_LOG_RATIO = 0.2, 3.5


def exclusive_pairs(supports: Sequence[Support]) -> Tensor:
    """(N, N) bool: pairs of different classes that no support shows together."""
    shown = torch.stack([support.masks.flatten(1).amax(1) > 0 for support in supports]).float()  # (k, N)
    return (shown.T @ shown == 0).fill_diagonal_(False)


def pairwise_presence_logits(ratios: Tensor, exclusive: Tensor, margin_weight: float, alone: Tensor) -> Tensor:
    """(N,) log odds of presence from top-k log ratios (N,); `alone` (N,) for classes without a competitor.

    exclusive: (N, N) from `exclusive_pairs`. margin_weight: log odds for each unit of lead over the strongest
    competitor.
    """
    others = ratios.expand(len(ratios), -1).masked_fill(~exclusive, -torch.inf).amax(1)
    logits = _OWN_WEIGHT * (ratios - _EVEN_LOG_RATIO) + margin_weight * (ratios - others)
    return torch.where(exclusive.any(1), logits, alone)
