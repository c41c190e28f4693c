"""`kshot train ...`: the group of commands, and what they share. Each run is a folder that --resume continues."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import typer

from kshot.cli import options as o
from kshot.cli.lazy import LazyGroup
from kshot.cli.output import bars, say
from kshot.errors import plural

if TYPE_CHECKING:
    from kshot.data.base import Dataset


class _Commands(LazyGroup):
    """The commands of the group."""

    places: ClassVar = {
        "heads": "train_heads.heads",
        "episodic": "train_episodic.episodic",
        "finetune": "train_finetune.finetune",
        "background": "train_background.background",
        "distill": "train_distill.distill",
    }


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    help="Train heads, learnable methods, backgrounds, or a small encoder of your own.",
)

data, learning = (partial(o.option, panel) for panel in ("Data", "Learning"))
Photos: TypeAlias = Annotated[Path, typer.Argument(help="Folder of photographs, with sub-folders; no labels needed.")]
Limit: TypeAlias = Annotated[int, data("Photographs at most.", min=1)]
Without: TypeAlias = Annotated[list[Path] | None, data("Folder of test images, which must not be learned from.")]
Lr: TypeAlias = Annotated[float, learning("Highest learning rate of AdamW.")]
Seed: TypeAlias = Annotated[int, learning("Seed of everything random.", min=0)]


@dataclass(frozen=True)
class Learning:
    """What `train heads` and `train distill` share."""

    masks: Annotated[Path | None, data("Masks of objects: same place and name, .png.")] = None
    batch_size: Annotated[int, learning("Photographs of a forward pass.", min=1)] = 16
    grad_accumulation_steps: Annotated[int, learning("Forward passes of a step.", min=1)] = 1
    seed: Seed = 0
    device: o.Device = "auto"
    resume: o.Resume = False
    overwrite: o.Overwrite = False


@contextmanager
def training_bar() -> Iterator[Callable[[str, int, int, dict[str, float]], None]]:
    """A progress callback of `kshot.training`, on stderr when that is a terminal."""
    with bars() as bar:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage)
            text = f"{stage}, loss {figures['loss']:.4f}" if "loss" in figures else stage
            bar.update(tasks[stage], completed=done, total=total, description=text)

        yield step


def open_datasets(folders: Sequence[Path]) -> "list[Dataset]":
    """Data sets in any layout that `kshot eval` reads."""
    from kshot.data.base import load_dataset
    from kshot.io.paths import user_cache

    return [load_dataset("auto", folder, cache=user_cache() / "areas") for folder in folders]


def say_near_duplicates(count: int, folders: Sequence[Path] | None) -> None:
    """How many photographs were left out, if any."""
    if count:
        where = " or ".join(map(str, folders or ()))
        say(f"left out {plural(count, 'photograph')} that {where} holds too")
