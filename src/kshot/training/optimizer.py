"""The optimizer: AdamW, with Muon for inner matrices and kernels on demand.

Muon (Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks") replaces the momentum of a matrix
by the nearest orthogonal matrix, found by five Newton-Schulz iterations, so that all directions of a layer learn
equally fast. It reaches the same loss in far fewer steps. torch.optim.Muon exists only from torch 2.9 on and refuses
convolution kernels, which count here as matrices of (out, in * height * width). All other weights move by AdamW
(Loshchilov and Hutter, ICLR 2019).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_BETAS, _EPS = (0.9, 0.99), 1e-8
_NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5  # coefficients of the quintic iteration, as published


def make_optimizer(
    model: nn.Module, lr: float, weight_decay: float, muon_lr_ratio: float, lr_multipliers: Mapping[str, float]
) -> torch.optim.Optimizer:
    """AdamW, or with `muon_lr_ratio` above 0 Muon for inner matrices and kernels at that multiple of `lr`.

    Matrices and kernels get weight decay; biases and norms do not. lr_multipliers: factor of the learning rate, by the
    beginning of the weights' names. Each group of the result holds its factor as `lr_multiplier`.
    """
    end_layers = tuple(getattr(model, "input_and_output_layers", ()))
    groups: dict[tuple[float, str], list[Tensor]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            multiplier = next((factor for start, factor in lr_multipliers.items() if name.startswith(start)), 1.0)
            kind = "vector" if weight.ndim <= 1 else "matrix"
            # Muon's authors leave the first and the last layers to AdamW, which suits them better.
            if muon_lr_ratio and kind == "matrix" and not name.startswith(end_layers):
                multiplier, kind = multiplier * muon_lr_ratio, "inner"
            groups.setdefault((multiplier, kind), []).append(weight)
    made: Iterable[dict[str, Any]] = [
        {"params": weights, "weight_decay": 0.0 if kind == "vector" else weight_decay, "lr_multiplier": multiplier}
        | ({"muon": kind == "inner"} if muon_lr_ratio else {})
        for (multiplier, kind), weights in groups.items()
    ]
    return Muon(made, lr) if muon_lr_ratio else torch.optim.AdamW(made, lr=lr)


class Muon(torch.optim.Optimizer):
    """Parameter groups with `muon` true take Muon's steps, the others AdamW's; `lr`, `weight_decay` are per group."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float):
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "muon": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # the trainer passes no closure
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            direction = _muon_direction if group["muon"] else _adam_direction
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(direction(weight.grad, self.state[weight]), alpha=-group["lr"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """A matrix (rows, columns) with nearly the same singular vectors, and all singular values near 1."""
    tall = matrix.shape[0] > matrix.shape[1]
    found = (matrix.T if tall else matrix).bfloat16()
    found = found / (found.norm() + 1e-7)
    for linear, cubic, quintic in _NEWTON_SCHULZ:
        square = found @ found.T
        found = linear * found + (cubic * square + quintic * square @ square) @ found
    nearest: Tensor = (found.T if tall else found).to(matrix)
    return nearest


def _muon_direction(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """Nesterov momentum, orthogonalized; tall matrices move more, so that outputs of all layers move alike."""
    matrix = gradient.reshape(gradient.shape[0], -1)
    momentum = state.setdefault("momentum", torch.zeros_like(matrix))
    momentum.lerp_(matrix, 1 - _MOMENTUM)
    step = orthogonalize(matrix.lerp(momentum, _MOMENTUM))
    found: Tensor = (step * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5).reshape(gradient.shape)
    return found


def _adam_direction(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    if not state:
        state |= {"step": torch.zeros(()), "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    state["step"] += 1
    state["mean"].lerp_(gradient, 1 - _BETAS[0])
    state["square"].lerp_(gradient.square(), 1 - _BETAS[1])
    mean = state["mean"] / (1 - _BETAS[0] ** float(state["step"]))
    square = state["square"] / (1 - _BETAS[1] ** float(state["step"]))
    found: Tensor = mean / (square.sqrt() + _EPS)
    return found
