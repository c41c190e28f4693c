"""kshot's commands, run in this process."""

from typer.testing import CliRunner, Result

from kshot.cli import app

TOY = ["--backbone", "toy", "--size", "96"]


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result
