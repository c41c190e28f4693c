"""The tour runs as one session, and prints what stands on its page."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kshot.cli import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tour.md"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.mark.slow
def test_the_tour_prints_what_its_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    printed = ""
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S):
        if language == "text":
            _assert_alike(printed, text)
        else:
            printed = _run_python(text, namespace) if language == "python" else _run_commands(text)
    assert namespace


def _run_python(text: str, namespace: dict[str, object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(text, str(PAGE), "exec"), namespace)
    return out.getvalue()


def _run_commands(text: str) -> str:
    outputs = []
    for line in text.splitlines():
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output)
        outputs.append(result.stdout)
    return "".join(outputs)


def _assert_alike(printed: str, shown: str) -> None:
    """Words are the same; numbers may differ by a hundredth or 5 %, as between processors and versions of torch."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split()
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.011)
