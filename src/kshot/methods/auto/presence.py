"""Which of several classes are there: each one's familiarity, against that of the most familiar rival.

Classes that one image shows together, as a tower and its lamp, do not rule each other out: they are no rivals.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kshot.methods.base import Support

# Of a logistic regression over episodes of two ways on photographs: what a unit of log ratio adds to the log odds of
# presence by itself, and the log ratio that is even odds where the most familiar rival is as familiar.
_OWN, _EVEN = 0.2, 3.5


def rivals_of(supports: Sequence[Support]) -> Tensor:
    """(N, N) bool: which classes no support shows together with which."""
    shown = torch.stack([support.masks.flatten(1).amax(1) > 0 for support in supports]).float()  # (k, N)
    return (shown.T @ shown == 0).fill_diagonal_(False)


def contested(seen: Tensor, rivals: Tensor, rivalry: float, alone: Tensor) -> Tensor:
    """(N,) log odds of presence, by how familiar (N,) the best cells are as each; `alone` (N,) where one has no rival.

    rivals: (N, N) bool. rivalry: what each unit of log ratio over the most familiar rival adds.
    """
    others = seen.expand(len(seen), -1).masked_fill(~rivals, -torch.inf).amax(1)
    return torch.where(rivals.any(1), _OWN * (seen - _EVEN) + rivalry * (seen - others), alone)
