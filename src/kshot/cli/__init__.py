"""The command line: each command parses, calls and prints. Results go to stdout, logs to stderr."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from kshot._version import __version__
from kshot.cli.config import find_config, read_config
from kshot.cli.lazy import LazyGroup
from kshot.cli.output import be_quiet, say, say_error
from kshot.errors import KshotError, SettingError, UnknownNameError

_EVERYWHERE = {"-v", "--verbose", "-q", "--quiet"}
_TYPED = "kshot.typed"


class _Commands(LazyGroup):
    """All commands; the options that all of them share may stand before or behind a command's name."""

    places: ClassVar = {
        "demo": "demo.demo",
        "label": "label.label",
        "fit": "fit.fit",
        "predict": "label.predict",
        "serve": "serve.serve",
        "convert": "convert.convert",
        "cvat-function": "cvat_function.cvat_function",
        "report": "report.report",
        "eval": "evaluate.evaluate",
        "compare": "evaluate.compare",
        "datasets": "evaluate.datasets",
        "models": "models.app",
        "train": "train.app",
        "doctor": "doctor.doctor",
    }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[_TYPED] = [arg for arg in args[:end] if arg not in _EVERYWHERE] + args[end:]
        return super().parse_args(ctx, [arg for arg in args[:end] if arg in _EVERYWHERE] + ctx.meta[_TYPED])


app = typer.Typer(
    name="kshot",
    cls=_Commands,
    help="Few-shot semantic segmentation: show one to five examples of a class, get its masks in your other images.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kshot {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say each step on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors, failures and results.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    # Only kshot's own steps: other libraries say a lot on their lower levels.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    logging.getLogger("kshot").setLevel(logging.DEBUG if verbose else logging.WARNING)
    be_quiet(quiet)
    if context.default_map is None:
        context.default_map = _defaults(context)


def _defaults(context: typer.Context) -> dict[str, Any]:
    """Defaults of the options, from kshot.toml."""
    path = find_config(context.meta.get(_TYPED, ()))
    if path is None:
        return {}
    if path.parent != Path():
        say(f"settings: {path}")
    commands: dict[str, Any] = getattr(context.command, "commands", {})
    return read_config(path, {name: _options_of(command) for name, command in commands.items()})


def _options_of(command: Any) -> list[str] | None:
    """Names of a command's options; None for a group of commands."""
    if hasattr(command, "commands"):
        return None
    return [option.name for option in command.params if option.param_type_name == "option"]


def main() -> None:
    """Entry point. Exit codes: 0 good, 1 failure, 2 usage, 3 some images failed, 130 interrupted.

    Usage errors are what the parser of the command line refuses and values that no option takes.
    """
    try:
        app()
    except KshotError as error:
        say_error(error, as_json="--json" in sys.argv)
        sys.exit(2 if isinstance(error, SettingError | UnknownNameError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output (head, less) has had enough; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


__all__ = ["app", "main", "read_config"]
