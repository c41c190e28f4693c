"""A state of training as one safetensors file: tensors and a JSON header, written whole or not at all. No pickle."""

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
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a state of training; raises `OutputError`, and keeps the old file, when the disk refuses.

    facts: what the JSON header holds, such as the step and the settings. average: the model with averaged weights.
    """
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"{_AVERAGE}{name}": tensor for name, tensor in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}.{name}": value for name, value in state.items()}
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, {_FACTS: json.dumps(facts)})
        except SafetensorError as error:
            raise OutputError(f"{path}: cannot be written ({error}); the checkpoint before it is kept") from error


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and tensors of a file; raises `TrainingError` for a missing, a damaged or a foreign file."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such checkpoint to resume; begin anew, without --resume") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not a checkpoint of kshot ({error})") from error


def restore(
    path: Path,
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Restore, bit for bit, what `save` wrote; `tensors` come from `read`.

    Raises `TrainingError`, naming the first tensor that does not fit, for a checkpoint of another architecture.
    """
    load_weights(model, _below(tensors, _MODEL), path)
    if average is not None:
        load_weights(average, _below(tensors, _AVERAGE), path)
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, _OPTIMIZER).items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})


def weights_of(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts of a checkpoint, and the weights to use: the averaged ones where there are any."""
    facts, tensors = read(path)
    return facts, _below(tensors, _AVERAGE) or _below(tensors, _MODEL)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a model; raises `TrainingError` that names the first that does not fit."""
    own = model.state_dict()
    for name in sorted(set(own) | set(weights)):
        if name not in own or name not in weights or own[name].shape != weights[name].shape:
            here, there = (tuple(side[name].shape) if name in side else "missing" for side in (own, weights))
            raise TrainingError(
                f"{path}: a checkpoint of another architecture: {name} is {there} there and {here} here; "
                "give the settings that it was trained with, or another folder"
            )
    model.load_state_dict(dict(weights))


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of the name."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
