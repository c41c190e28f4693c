"""The command line: each command parses, calls and prints. Results go to stdout, logs to stderr."""

import logging
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from kshot._version import __version__
from kshot.cli import (
    convert,
    demo,
    doctor,
    evaluate,
    fit,
    label,
    models,
    report,
    train,
    train_background,
    train_distill,
    train_episodic,
    train_heads,
)
from kshot.cli.output import say_error
from kshot.errors import KshotError, SettingError, UnknownNameError

app = typer.Typer(
    name="kshot",
    help="Few-shot semantic segmentation: show one to five examples of a class, get its masks in your other images.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("label", epilog=label.LABEL_EXAMPLES)(label.label)
app.command("fit", epilog=fit.FIT_EXAMPLES)(fit.fit)
app.command("predict", epilog=label.PREDICT_EXAMPLES)(label.predict)
app.command("convert", epilog=convert.EXAMPLES)(convert.convert)
app.command("report")(report.report)
app.command("eval")(evaluate.evaluate)
app.command("compare")(evaluate.compare)
app.command("datasets")(evaluate.datasets)
app.add_typer(models.app, name="models")
train.app.command("heads", epilog=train_heads.EXAMPLES)(train_heads.heads)
train.app.command("episodic")(train_episodic.episodic)
train.app.command("background", epilog=train_background.EXAMPLES)(train_background.background)
train.app.command("distill", epilog=train_distill.EXAMPLES)(train_distill.distill)
app.add_typer(train.app, name="train")
app.command("doctor")(doctor.doctor)

_CONFIG = "kshot.toml"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kshot {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    if context.default_map is None:
        context.default_map = read_config(Path(_CONFIG), list(_commands()))


def read_config(path: Path, commands: list[str]) -> dict[str, Any]:
    """Defaults from kshot.toml: top-level keys count for all commands, a [command] table for that one.

    They rank below options and KSHOT_* variables. Raises `SettingError` when the file is not TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: not TOML ({error})") from error
    shared = {key.replace("-", "_"): value for key, value in values.items() if not isinstance(value, dict)}
    tables = {name: table for name, table in values.items() if isinstance(table, dict)}
    unknown = sorted(set(tables) - set(commands))
    if unknown:
        raise SettingError(f"{path}: no command is called {', '.join(unknown)}; there are {', '.join(commands)}")
    own = {name: {key.replace("-", "_"): value for key, value in table.items()} for name, table in tables.items()}
    return {name: shared | own.get(name, {}) for name in commands}


def _commands() -> set[str]:
    return {command.name for command in app.registered_commands if command.name} | {"models", "train"}


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
