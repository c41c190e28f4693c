"""`kshot train ...`: the group of commands, and what they share. Each run is a folder that --resume continues."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kshot.training.schedule import Progress as Step

app = typer.Typer(
    no_args_is_help=True, help="Train heads, learnable methods, backgrounds, or a small encoder of your own."
)


def option(panel: str, help: str, *flags: str, **more: Any) -> Any:
    """An option in a panel of the help."""
    return typer.Option(*flags, help=help, rich_help_panel=panel, **more)


DATA, LEARNING = "Data", "Learning"
Photos: TypeAlias = Annotated[Path, typer.Argument(help="Folder of photographs, with sub-folders; no labels needed.")]
Masks: TypeAlias = Annotated[Path | None, option(DATA, "Masks of objects: same place and name, .png.")]
Without: TypeAlias = Annotated[
    list[Path] | None, option(DATA, "Folder of test images, which must not be learned from.", "--without")
]
Limit: TypeAlias = Annotated[int, option(DATA, "Photographs at most.", min=1)]
BatchSize: TypeAlias = Annotated[int, option(LEARNING, "Examples of a forward pass.", min=1)]
GradAccumulationSteps: TypeAlias = Annotated[int, option(LEARNING, "Forward passes of a step.", min=1)]
Lr: TypeAlias = Annotated[float, option(LEARNING, "Highest learning rate of AdamW.")]
Seed: TypeAlias = Annotated[int, option(LEARNING, "Seed of everything random.", min=0)]
Dtype: TypeAlias = Annotated[str, option(LEARNING, "float32 or bfloat16.")]


@contextmanager
def training_bar() -> Iterator[Step]:
    """A progress callback of `kshot.training`; draws on stderr when that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage)
            text = f"{stage}, loss {figures['loss']:.4f}" if "loss" in figures else stage
            bar.update(tasks[stage], completed=done, total=total, description=text)

        yield step
