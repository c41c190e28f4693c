"""`kshot train ...`: learn heads, methods or an encoder; each run is a folder that --resume goes on with."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kshot.training.trainer import Progress as Step

app = typer.Typer(
    no_args_is_help=True, help="Train heads, learnable methods, backgrounds, or a small encoder of your own."
)


@contextmanager
def training_bar(title: str) -> Iterator[Step]:
    """A callback for `loop.train`; draws on stderr when that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def step(done: int, steps: int, figures: dict[str, float]) -> None:
            told = f"{title}, loss {figures['loss']:.4f}" if "loss" in figures else title
            bar.update(task, completed=done, total=steps, description=told)

        yield step
