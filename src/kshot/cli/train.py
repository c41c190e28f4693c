"""`kshot train ...`: learn heads, methods or an encoder; each run is a folder that --resume goes on with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from kshot.cli.output import bars

app = typer.Typer(
    no_args_is_help=True, help="Train heads, learnable methods, backgrounds, or a small encoder of your own."
)


@contextmanager
def training_bar(title: str) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """A callback for `train`, on stderr when that is a terminal."""
    with bars() as bar:
        task = bar.add_task(title, total=None)

        def step(done: int, steps: int, figures: dict[str, float]) -> None:
            told = f"{title}, loss {figures['loss']:.4f}" if "loss" in figures else title
            bar.update(task, completed=done, total=steps, description=told)

        yield step
