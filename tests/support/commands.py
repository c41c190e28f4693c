"""kshot's commands, run in this process."""

from functools import cache
from typing import Any

import typer
from typer.testing import CliRunner, Result

from kshot.cli import app

TOY = ["--backbone", "toy", "--size", "96"]


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@cache
def commands() -> dict[str, Any]:
    """Every command by the words that call it, such as "models list"; groups of commands count too."""

    def below(group: Any, words: str) -> dict[str, Any]:
        found = {}
        for name, command in getattr(group, "commands", {}).items():
            found |= {f"{words}{name}": command} | below(command, f"{words}{name} ")
        return found

    return below(typer.main.get_command(app), "")
