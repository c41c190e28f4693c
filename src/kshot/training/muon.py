"""AdamW with orthogonal steps for matrices and kernels: far fewer steps where compute is what is short.

Muon (Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks"): the momentum of a matrix is
replaced by the nearest orthogonal one, found by five Newton-Schulz steps, so that all directions of a layer learn at
the same pace. Kernels count as matrices of (out, in * height * width), which torch's own Muon refuses, and older
torch has none. Everything else moves by AdamW (Loshchilov and Hutter, ICLR 2019).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95
_BETAS, _SMALL = (0.9, 0.99), 1e-8
_STEPS = ((3.4445, -4.7750, 2.0315),) * 5  # of the quintic iteration, as published


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` true take orthogonal steps, the others AdamW's; `lr`, `weight_decay` are per group."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float):
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # the loop asks for no closure
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            move = _orthogonal if group["orthogonal"] else _adaptive
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(move(weight.grad, self.state[weight]), alpha=-group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """(rows, columns) with nearly the same singular vectors and all singular values near one."""
    tall = matrix.shape[0] > matrix.shape[1]
    found = (matrix.T if tall else matrix).bfloat16()
    found = found / (found.norm() + 1e-7)
    for linear, cubic, quintic in _STEPS:
        square = found @ found.T
        found = linear * found + (cubic * square + quintic * square @ square) @ found
    nearest: Tensor = (found.T if tall else found).to(matrix)
    return nearest


def _orthogonal(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """Nesterov momentum, made orthogonal; tall matrices move more, so that outputs move alike."""
    matrix = gradient.reshape(gradient.shape[0], -1)
    momentum = state.setdefault("momentum", torch.zeros_like(matrix))
    momentum.lerp_(matrix, 1 - _MOMENTUM)
    step = orthogonal(matrix.lerp(momentum, _MOMENTUM))
    found: Tensor = (step * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5).reshape(gradient.shape)
    return found


def _adaptive(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    if not state:
        state |= {"step": torch.zeros(()), "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    state["step"] += 1
    state["mean"].lerp_(gradient, 1 - _BETAS[0])
    state["square"].lerp_(gradient.square(), 1 - _BETAS[1])
    mean = state["mean"] / (1 - _BETAS[0] ** float(state["step"]))
    square = state["square"] / (1 - _BETAS[1] ** float(state["step"]))
    found: Tensor = mean / (square.sqrt() + _SMALL)
    return found
