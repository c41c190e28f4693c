"""What every command prints, and how: people read stderr and text, programs read --json."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kshot.batch import Summary
from kshot.io.manifest import FAILED, Record


def say(text: str) -> None:
    """A remark for people, on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def say_error(error: Exception, as_json: bool = False) -> None:
    """An error for people on stderr, and for programs on stdout when they asked for JSON."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {_plain(str(error))}")
    if as_json:
        print_json({"error": type(error).__name__, "message": str(error)})


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, default=str))


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[Record, int, int], None]]:
    """A callback for `label_folder`; draws on stderr when that is a terminal, and says failures at once."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def step(record: Record, through: int, total: int) -> None:
            bar.update(task, completed=through, total=total)
            if record["status"] == FAILED:
                bar.console.print(f"[yellow]failed[/] {_plain(record['input'])}: {_plain(record['reason'])}")

        yield step


def finish(summary: Summary, as_json: bool, again: str, report: Path) -> None:
    """Print the summary and leave with its exit code; `again` is the command that continues the run."""
    if as_json:
        print_json(asdict(summary) | {"report": str(report)})
    else:
        parts = [f"{summary.processed} processed", f"{summary.objects} objects", f"{summary.empty} empty"]
        parts += [f"{summary.failed} failed"] + ([f"{summary.skipped} done before"] if summary.skipped else [])
        typer.echo(f"{', '.join(parts)} in {summary.seconds:.1f} s -> {summary.out}")
    if summary.interrupted:
        say(
            f"interrupted after {summary.processed + summary.skipped} of {summary.total} images; continue with: {again}"
        )
        raise typer.Exit(130)
    if summary.failed:
        failed = (
            "1 image failed; its reason stands"
            if summary.failed == 1
            else f"{summary.failed} images failed; their reasons stand"
        )
        say(f"{failed} in {summary.out}/manifest.jsonl")
        raise typer.Exit(3)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
