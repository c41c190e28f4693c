"""Help and usage errors are there at once, and say what there is."""

import json
import re
import subprocess
import sys

import pytest

from kshot import _plugins
from kshot.backbones.base import specs
from kshot.cli import parsing
from kshot.episodes.protocols import PROTOCOLS
from kshot.io.images import MAX_PIXELS
from kshot.report import EMBED_LIMIT
from tests.support.commands import commands, run

# Runs commands in one process; for each, its exit code and what is heavy and was imported for it or one before.
SCRIPT = """
import contextlib, io, json, sys
from kshot._elsewhere import installed
from kshot.cli import app
heavy = {"PIL", "numpy", "rasterio", "scipy", "skimage", "torch", "transformers"}
found = {}
for words in json.load(sys.stdin):
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            app(words, prog_name="kshot")
        except SystemExit as stopped:
            read = ["metadata of distributions"] if installed.cache_info().currsize else []
            found[" ".join(words)] = [stopped.code, sorted(heavy & set(sys.modules)) + read]
print(json.dumps(found))
"""
USAGE_ERRORS = [
    "nonsense",
    "label",
    "label images -o out",
    "label support images -o out --limit 0",
    "predict",
    "fit",
    "convert out",
    "report",
    "eval voc",
    "compare one",
    "datasets",
    "models info",
    *[f"{name} --nonsense" for name in commands()],
]


def in_a_new_process(lines: list[str]) -> dict[str, list]:
    words = json.dumps([line.split() for line in lines])
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_help_imports_nothing_heavy() -> None:
    helps = ["--help", "--version", *[f"{name} --help" for name in commands()]]
    assert in_a_new_process(helps) == {line: [0, []] for line in helps}


def test_help_imports_one_command_and_checks_no_value() -> None:
    script = """
import sys
from kshot.cli import app
try:
    app(["label", "--help"])
except SystemExit:
    print({"pydantic", "kshot.cli.fit", "kshot.cli.train", "kshot.cli.label"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{'kshot.cli.label'}"


def test_usage_errors_import_nothing_heavy() -> None:
    assert in_a_new_process(USAGE_ERRORS) == {line: [2, []] for line in USAGE_ERRORS}


def told(command: str, option: str) -> str:
    """The help of an option in one line."""
    for parameter in commands()[command].params:
        if option in parameter.opts:
            return str(parameter.help).replace("\\[", "[")
    raise AssertionError(f"{command} has no {option}")


def test_help_says_what_python_says() -> None:
    """These are written by hand in help texts, because what defines them costs an import."""
    assert told("label", "--max-pixels").endswith(f"[default: {MAX_PIXELS}]")
    assert told("report", "--embed").endswith(f"[default: {EMBED_LIMIT}]")
    assert told("eval", "--protocol") == ", ".join(PROTOCOLS)


def test_help_lists_the_files_of_a_family() -> None:
    assert told("label", "--refiner") == f"How masks meet edges: {', '.join(_plugins.option_names('refiners'))}."
    methods = ", ".join(_plugins.option_names("methods"))
    told_method = f"How classes are told apart: {methods}; or a Python file of your own, ./mine.py."
    assert told("label", "--method") == told_method
    backbones = sorted(set(specs()) - {"toy"})
    assert told("label", "--backbone") == f"{', '.join(backbones)}, a Hub id or a local folder."
    assert told("label", "--format") == f"Comma-separated: {parsing.WRITTEN}."
    for name in parsing.WRITTEN.split(", "):
        assert name in _plugins.option_names("formats")


@pytest.mark.parametrize("name", list(commands()))
def test_every_option_has_its_help(name: str) -> None:
    command = commands()[name]
    assert command.help and re.match(r"[A-Z`]", command.help)
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name
    assert "Usage" in run(*name.split(), "--help").stdout
