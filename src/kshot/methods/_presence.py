"""Which of several classes are there: each one's familiarity, against that of the most familiar other."""

import torch
from torch import Tensor

# Of a logistic regression over episodes of two ways on photographs: what a unit of log ratio adds to the log odds of
# presence by itself, and the log ratio that is even odds where the most familiar other class is as familiar.
_OWN, _EVEN = 0.2, 3.5


def contested(seen: Tensor, rivalry: float) -> Tensor:
    """(N,) log odds of presence of N >= 2 classes, by how familiar (N,) the best cells are as each.

    rivalry: what each unit of log ratio over the most familiar other class adds.
    """
    best = seen.topk(2)
    others = torch.where(torch.arange(len(seen)) == best.indices[0], best.values[1], best.values[0])
    return _OWN * (seen - _EVEN) + rivalry * (seen - others)
