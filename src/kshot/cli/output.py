"""What commands print, and how: people read stderr and text, programs read --json."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kshot.errors import plural

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from kshot.batch import Summary
    from kshot.io.manifest import Record
    from kshot.methods.base import Task
    from kshot.types import SupportSet

_quiet = False


def be_quiet(quiet: bool) -> None:
    """Whether notes and progress are left out; errors, failed images and results never are."""
    global _quiet
    _quiet = quiet


def say(text: str) -> None:
    """A note for people, on stderr."""
    if not _quiet:
        _tell(text)


def _tell(text: str) -> None:
    """What people have to know, on stderr."""
    _stderr(soft_wrap=True).print(text, markup=False)


def say_error(error: Exception, as_json: bool = False) -> None:
    """An error for people on stderr, and for programs on stdout when they asked for JSON."""
    _stderr(soft_wrap=True).print(f"[bold red]error:[/] {_plain(str(error))}")
    if as_json:
        print_json({"error": type(error).__name__, "message": str(error)})


def say_warnings(task: "Task") -> None:
    """What fitting noticed about the supports, for people."""
    for warning in task.warnings:
        say(f"look: {warning}")


def say_size(task: "Task") -> None:
    """Which working size was chosen for a task, and why, where it was."""
    if task.size_choice is not None:
        say(str(task.size_choice))


def say_notes(supports: "SupportSet") -> None:
    """What reading the supports left out, for people."""
    say_lines([f"supports: {note}" for note in supports.notes], failed=supports.failures > 0)


def say_lines(lines: Iterable[str], *, failed: bool) -> None:
    """Remarks for people; with --quiet only where something failed, which they have to know."""
    for line in lines:
        (_tell if failed else say)(line)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, default=str))


def answer(as_json: bool, facts: Any, *lines: str) -> None:
    """What a command found out, on stdout: one JSON document of facts, or lines for people."""
    if as_json:
        print_json(facts)
    else:
        typer.echo("\n".join(lines))


def described(supports: "SupportSet") -> str:
    """What the supports are, and where they were found."""
    counts = {name: sum(name in shot.classes for shot in supports) for name in supports.classes}
    listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"supports: {listed}; read from {supports.source}"


def bars(*columns: Any, shown: bool = True, transient: bool = True) -> "Progress":
    """Progress bars on stderr, when that is a terminal. columns: after the usual ones."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    usual = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = _quiet or not (shown and sys.stderr.isatty())
    return Progress(*usual, *columns, console=_stderr(), disable=hidden, transient=transient)


@contextmanager
def progress_bar(title: str) -> "Iterator[Callable[[Record, int, int], None]]":
    """A callback for `label_folder`, which says failures at once."""
    from kshot.io.manifest import FAILED

    with bars() as bar:
        task = bar.add_task(title, total=None)

        def step(record: "Record", through: int, total: int) -> None:
            bar.update(task, completed=through, total=total)
            if record["status"] == FAILED:
                failed = f"[yellow]failed[/] {_plain(record['input'])}: {_plain(record['reason'])}"
                bar.console.print(failed, soft_wrap=True)

        yield step


def finish(summary: "Summary", as_json: bool, again: str, report: Path, supports: "SupportSet | None" = None) -> None:
    """Print the summary and leave with its exit code; `again` is the command that continues the run."""
    if as_json:
        notes = {} if supports is None else {"supports": supports.notes}
        print_json(asdict(summary) | {"report": str(report)} | notes)
    else:
        objects = plural(summary.objects, "object")
        parts = [f"{summary.processed} processed", objects, f"{summary.empty} empty"]
        parts += [f"{summary.failed} failed"] + ([f"{summary.skipped} done before"] if summary.skipped else [])
        typer.echo(f"{', '.join(parts)} in {summary.seconds:.1f} s -> {summary.out}")
        if summary.table:
            typer.echo(f"table: {summary.table}")
        say_lines((f"table: {line}" for line in summary.notes), failed=False)
        if summary.left_out:
            say(f"objects: {summary.left_out}")
        if summary.advice:
            say(f"look: {summary.advice}")
    if summary.interrupted:
        through = summary.processed + summary.skipped
        _tell(f"interrupted after {through} of {plural(summary.total, 'image')}; continue with: {again}")
        raise typer.Exit(130)
    if summary.failed:
        one = summary.failed == 1
        failed = "1 image failed; its reason stands" if one else f"{summary.failed} images failed; their reasons stand"
        _tell(f"{failed} in {summary.out}/manifest.jsonl")
    if summary.failed or (supports is not None and supports.failures):
        raise typer.Exit(3)


def _stderr(soft_wrap: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=soft_wrap)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
