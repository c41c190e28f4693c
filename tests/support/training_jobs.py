"""A small job that is a real one: a network with dropout learns a curve from noisy points."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.__main__ import run as end_as_a_command
from kshot.errors import KshotError
from kshot.training.schedule import Schedule
from kshot.training.trainer import TrainingResult, train

QUICK = {"steps": 12, "batch_size": 8, "lr": 0.02, "validate_every": 4, "save_every": 4}


class Curve:
    """y = sin(3 x). pause: seconds a batch takes. spoil: step in which the loss is not a number; explode: in which its
    gradient is not. hungry: bytes of memory that an example takes.
    """

    def __init__(
        self,
        width: int = 16,
        dropout: float = 0.2,
        pause: float = 0.0,
        spoil: int = -1,
        explode: int = -1,
        hungry: int = 0,
    ):
        torch.manual_seed(7)
        self.model = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1))
        self.pause, self.spoil, self.explode, self.hungry = pause, spoil, explode, hungry

    def batch(self, step: int, part: int, size: int) -> tuple[int, Tensor, Tensor]:
        time.sleep(self.pause)
        rows = [np.random.default_rng((5, part * size + n)).normal(size=2) for n in range(size)]
        x = torch.tensor([row[0] for row in rows], dtype=torch.float32)[:, None]
        noise = torch.tensor([row[1] for row in rows], dtype=torch.float32)[:, None]
        return step, x, torch.sin(3 * x) + 0.1 * noise

    def losses(self, batch: tuple[int, Tensor, Tensor]) -> dict[str, Tensor]:
        step, x, y = batch
        if self.hungry:
            torch.empty(len(x) * self.hungry, dtype=torch.uint8)
        loss = F.mse_loss(self.model(x).float(), y)
        if step == self.spoil:
            loss = loss * float("nan")
        if step == self.explode:  # the root's slope at zero: a finite loss with an infinite gradient
            loss = loss + torch.sqrt(loss - loss)
        return {"loss": loss, "error": loss.detach().sqrt()}

    def validate(self) -> dict[str, float]:
        x = torch.linspace(-1.5, 1.5, 61)[:, None]
        return {"loss": float(F.mse_loss(self.model(x), torch.sin(3 * x)))}


def run(out: Path, schedule: dict[str, object] | None = None, resume: bool = False, **job: object) -> TrainingResult:
    """Train a `Curve` with a quick schedule."""
    made = Schedule(**(QUICK | (schedule or {})))
    shape = {name: value for name, value in job.items() if name in {"width", "dropout"}}
    return train(Curve(**job), made, out, {"what": "curve", **shape}, resume=resume)


def main() -> None:
    """What subprocesses run: the arguments of `run` as JSON; the error is printed, as the command line would."""
    arguments = json.loads(sys.argv[1])
    try:
        run(Path(arguments.pop("out")), **arguments)
    except KshotError as error:
        print(type(error).__name__, error)
        sys.exit(1)


if __name__ == "__main__":
    end_as_a_command(main)
