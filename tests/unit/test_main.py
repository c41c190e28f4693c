"""The process of a command: what is written arrives, and what was registered for the end is done."""

import subprocess
import sys

COMMAND = """
import atexit, sys, threading, time
from pathlib import Path
import kshot.__main__ as process
place, *sys.argv = Path(sys.argv[1]), "kshot", *sys.argv[2:]
command = process.main
def main():
    atexit.register(lambda: (place / "registered").touch())
    threading.Thread(target=lambda: (time.sleep(0.1), (place / "thread").touch())).start()
    command()
process.main = main
process.run()
"""


def test_what_is_pending_at_the_end_is_done(tmp_path) -> None:
    command = [sys.executable, "-c", COMMAND, str(tmp_path), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("kshot ")
    assert {path.name for path in tmp_path.iterdir()} == {"registered", "thread"}


def test_the_exit_code_of_a_usage_error_survives(tmp_path) -> None:
    command = [sys.executable, "-c", COMMAND, str(tmp_path), "label", "--nonsense"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_an_error_that_nobody_foresaw_is_told() -> None:
    code = "import kshot.__main__ as m\nm.main = lambda: 1 / 0\nm.run()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
