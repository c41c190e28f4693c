"""What real processes leave behind: killed, out of disk, and two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kshot.errors import TrainingError
from kshot.training import checkpoint, log
from tests.support.training_jobs import run

ROOT = Path(__file__).resolve().parents[3]
JOBS = ["-m", "tests.support.training_jobs"]
# What ends in a fault of the system says where.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    "OMP_NUM_THREADS": "1",
    "PYTHONFAULTHANDLER": "1",
}


def figures(out: Path) -> list[tuple[object, ...]]:
    """Every line of the log without its time, floats to the bit."""
    return [tuple((k, v) for k, v in line.items() if k != "seconds") for line in log.read(out)]


def start(*arguments: str, **settings: object) -> subprocess.Popen[str]:
    command = [sys.executable, *arguments, json.dumps(settings)]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("ema_decay", [0.0, 0.8])
def test_a_killed_run_goes_on_to_the_bit(tmp_path: Path, ema_decay: float) -> None:
    plan = {"ema_decay": ema_decay, "save_every": 3}
    run(tmp_path / "whole", plan)
    killed = start(*JOBS, out=str(tmp_path / "killed"), schedule=plan, pause=0.15)
    until = time.monotonic() + 120
    while len([line for line in log.read(tmp_path / "killed") if line["kind"] == log.TRAIN]) < 8:
        assert killed.poll() is None and time.monotonic() < until, killed.communicate()[0]
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    facts, _ = checkpoint.read(tmp_path / "killed" / checkpoint.LAST)
    assert facts["state"]["step"] in (6, 9)  # lines behind it are dropped
    assert run(tmp_path / "killed", plan, resume=True).steps == 12
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    for name in (checkpoint.LAST, checkpoint.BEST):
        one, other = (checkpoint.read(tmp_path / folder / name)[1] for folder in ("whole", "killed"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_two_processes_equal_one_that_accumulates(tmp_path: Path) -> None:
    run(tmp_path / "one", {"grad_accumulation_steps": 2}, dropout=0.0)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = start(*launch, *JOBS, out=str(tmp_path / "two"), dropout=0.0)
    told, _ = both.communicate(timeout=240)
    assert both.returncode == 0, told
    one, two = log.read(tmp_path / "one"), log.read(tmp_path / "two")
    assert [line["kind"] for line in two] == [line["kind"] for line in one]
    for mine, theirs in zip(one, two, strict=True):
        assert theirs.get("loss", 0) == pytest.approx(mine.get("loss", 0), rel=1e-5)
    expected = checkpoint.weights_of(tmp_path / "one" / checkpoint.LAST)[1]
    for name, tensor in checkpoint.weights_of(tmp_path / "two" / checkpoint.LAST)[1].items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4)
    # As many examples a step: one process goes on where two were.
    assert run(tmp_path / "two", {"grad_accumulation_steps": 2}, resume=True, dropout=0.0).steps == 12


def test_a_limit_on_files_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """The system refuses every byte of a file beyond 2000, as a full disk does."""
    run(tmp_path, {"steps": 12})
    before = (tmp_path / checkpoint.LAST).read_bytes()
    script = (
        "import resource, signal, torch\n"
        "from pathlib import Path\n"
        "from kshot.errors import OutputError\n"
        "from kshot.training import checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "model = torch.nn.Linear(100, 100)\n"
        "optimizer = torch.optim.AdamW(model.parameters())\n"
        f"path = Path({str(tmp_path / checkpoint.LAST)!r})\n"
        "try:\n"
        "    checkpoint.save(path, {}, model, None, optimizer)\n"
        "except OutputError as error:\n"
        "    print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert f"refused: {tmp_path / checkpoint.LAST}: cannot be written" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / checkpoint.LAST).read_bytes() == before
    assert not list(tmp_path.glob(".kshot-*"))


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """A file system of a megabyte, filled until half of the next checkpoint fits."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        with pytest.raises(TrainingError, match="not finite"):
            run(place / "run", width=2000, spoil=5)
        before = (place / "run" / checkpoint.LAST).read_bytes()
        space = os.statvfs(place)
        (place / "fill").write_bytes(b"x" * (space.f_bavail * space.f_frsize - len(before) // 2))
        full = start(*JOBS, out=str(place / "run"), resume=True, width=2000)
        told, _ = full.communicate(timeout=120)
        assert full.returncode == 1 and "OutputError" in told and "cannot be written" in told
        assert (place / "run" / checkpoint.LAST).read_bytes() == before
        (place / "fill").unlink()
        assert run(place / "run", width=2000, resume=True).steps == 12
    finally:
        subprocess.run(["umount", str(place)], check=True)
