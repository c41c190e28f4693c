"""Which weights move how: the groups of the optimizer."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kshot.training.muon import Muon


def make_optimizer(
    model: nn.Module, lr: float, weight_decay: float, orthogonal: float, shares: Mapping[str, float]
) -> torch.optim.Optimizer:
    """AdamW, or with `orthogonal` above zero Muon for inner matrices and kernels at that many times the rate.

    Matrices and kernels decay; biases and norms do not. shares: what weights whose names begin so get of the rate.
    """
    ends = tuple(getattr(model, "input_and_output_layers", ()))
    groups: dict[tuple[float, str], list[Tensor]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            share = next((share for start, share in shares.items() if name.startswith(start)), 1.0)
            kind = "flat" if weight.ndim <= 1 else "wide"
            # What reads colours and what gives the answer learns better by AdamW, as Muon's authors found.
            if orthogonal and kind == "wide" and not name.startswith(ends):
                share, kind = share * orthogonal, "inner"
            groups.setdefault((share, kind), []).append(weight)
    made: Iterable[dict[str, Any]] = [
        {"params": weights, "weight_decay": 0.0 if kind == "flat" else weight_decay, "share": share}
        | ({"orthogonal": kind == "inner"} if orthogonal else {})
        for (share, kind), weights in groups.items()
    ]
    return Muon(made, lr) if orthogonal else torch.optim.AdamW(made, lr=lr)
