"""Data-parallel training under torchrun, or in one process. The only module that uses torch.distributed."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from kshot.backbones.base import pick_device

# The other processes wait while the main one validates, which may take longer than the half hour that torch allows.
_TIMEOUT = timedelta(hours=12)


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process, from 0, and number of processes, as torchrun says."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank_and_world_size()[0] == 0


def local_device(device: str) -> torch.device:
    """The device of this process: under torchrun each process takes its own GPU, as far as there are enough."""
    chosen = pick_device(device)
    if str(chosen) == "cuda" and rank_and_world_size()[1] > 1:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return chosen


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Connect all processes that torchrun started while the block lasts; without torchrun there is one.

    device: where the model lies.
    """
    if rank_and_world_size()[1] == 1:
        yield
        return
    # NCCL needs a GPU for each process; gloo serves the CPU, and several processes on one GPU.
    own_gpu = device.type == "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
    if own_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if own_gpu else "gloo", timeout=_TIMEOUT)
    try:
        yield
        dist.barrier()  # the main process still writes when the others are done; none may leave before it
    finally:
        dist.destroy_process_group()


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Overwrite the tensors of all processes with those of the main one."""
    if rank_and_world_size()[1] > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def average_gradients(weights: Sequence[Tensor]) -> None:
    """Replace each gradient by its mean over the processes."""
    world_size = rank_and_world_size()[1]
    if world_size > 1:
        for weight in weights:
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            dist.all_reduce(gradient)
            weight.grad = gradient / world_size


def average(figures: dict[str, float]) -> dict[str, float]:
    """Means over the processes; all must give the same names."""
    world_size = rank_and_world_size()[1]
    if world_size == 1:
        return figures
    gathered: list[dict[str, float]] = [{}] * world_size
    dist.all_gather_object(gathered, figures)
    return {name: sum(each[name] for each in gathered) / world_size for name in figures}


def from_main_process(compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Compute in the main process and hand the result to all."""
    made: list[Any] = [compute() if is_main_process() else None]
    if rank_and_world_size()[1] > 1:
        dist.broadcast_object_list(made, 0)
    found: dict[str, float] = made[0]
    return found
