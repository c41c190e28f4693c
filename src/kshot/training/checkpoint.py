"""A training run on disk: one file of tensors with a JSON header, whole or not there at all. No pickle anywhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kshot.errors import OutputError, TrainingError
from kshot.io.atomic import atomic_path

LAST, BEST = "last.safetensors", "best.safetensors"
_FACTS = "kshot"
_MODEL, _AVERAGE, _OPTIMIZER = "model.", "average.", "optimizer."


def save(
    path: Path,
    facts: Mapping[str, Any],
    model: nn.Module,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a state of training; raises `OutputError` and leaves the old file when the disk refuses.

    facts: what JSON holds, such as the step and the settings. average: running means of the weights, may be empty.
    """
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"{_AVERAGE}{name}": tensor for name, tensor in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}.{name}": value for name, value in state.items()}
    with atomic_path(path) as beside:
        try:
            save_file(
                {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
                beside,
                {_FACTS: json.dumps(facts)},
            )
        except SafetensorError as error:
            raise OutputError(f"{path}: cannot be written ({error}); the checkpoint before it is kept") from error


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and tensors of a file; raises `TrainingError` when it is missing, damaged or something else."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such checkpoint; leave --resume out to begin anew") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not a checkpoint of kshot ({error})") from error


def restore(
    path: Path,
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put the tensors of a file back as they were when `save` was called, to the bit.

    Raises `TrainingError`, naming the first tensor that does not fit, for a checkpoint of another architecture.
    """
    load_weights(model, part(tensors, _MODEL), path)
    average.update({name: tensor.to(average[name]) for name, tensor in part(tensors, _AVERAGE).items()})
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part(tensors, _OPTIMIZER).items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})


def weights_of(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and the weights to be used: the running means where there are any."""
    facts, tensors = read(path)
    return facts, part(tensors, _AVERAGE) or part(tensors, _MODEL)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Fill a model; raises `TrainingError` that names what does not fit."""
    own = model.state_dict()
    for name in sorted(set(own) | set(weights)):
        if name not in own or name not in weights or own[name].shape != weights[name].shape:
            here, there = (tuple(side[name].shape) if name in side else "missing" for side in (own, weights))
            raise TrainingError(
                f"{path}: a checkpoint of another architecture: {name} is {there} there and {here} here; "
                "give the settings that it was trained with, or another --out"
            )
    model.load_state_dict(dict(weights))


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
