"""Several processes under torchrun, each with a part of the batch; or just one. The only user of torch.distributed."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from kshot.backbones.base import pick_device

# The others wait while the first validates, which may take longer than the half hour that torch allows.
_PATIENCE = timedelta(hours=12)


def own_device(device: str) -> torch.device:
    """The device of this process: under torchrun every process takes a GPU of its own, as far as there are some."""
    chosen = pick_device(device)
    if str(chosen) == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return chosen


@dataclass(frozen=True)
class Ranks:
    """number: of this process, from 0. count: of processes."""

    number: int = 0
    count: int = 1

    @classmethod
    @contextmanager
    def joined(cls, device: torch.device) -> Iterator["Ranks"]:
        """All processes that torchrun started, for as long as the block lasts; without torchrun this one alone.

        device: where the model lies.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield cls()
            return
        # NCCL wants a GPU for every process; gloo takes what lies on the CPU, and several on one GPU.
        alone = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
        if device.type == "cuda" and alone:
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" and alone else "gloo", timeout=_PATIENCE)
        try:
            yield cls(dist.get_rank(), dist.get_world_size())
            dist.barrier()  # the first still writes when the others are done, and none should leave before it
        finally:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.number == 0

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give everyone the first one's values."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def average_gradients(self, weights: Sequence[Tensor]) -> None:
        """Every process gets the mean gradient."""
        if self.count > 1:
            for weight in weights:
                gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                dist.all_reduce(gradient)
                weight.grad = gradient / self.count

    def average(self, figures: dict[str, float]) -> dict[str, float]:
        """Means over the processes; the same names everywhere."""
        if self.count == 1:
            return figures
        gathered: list[dict[str, float]] = [{}] * self.count
        dist.all_gather_object(gathered, figures)
        return {name: sum(each[name] for each in gathered) / self.count for name in figures}

    def from_first(self, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What the first process makes, everywhere."""
        made: list[Any] = [make() if self.first else None]
        if self.count > 1:
            dist.broadcast_object_list(made, 0)
        found: dict[str, float] = made[0]
        return found
