"""Nothing is lost: kills, full disks, two runs at once, other options, and inputs that stay as they are."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kshot
from kshot.annotations.model import Export
from kshot.batch import label_folder, read_manifest
from kshot.batch.run_folder import RunFolder
from kshot.errors import InputError, OutputError, SettingError
from kshot.io.atomic import write_text
from kshot.io.manifest import Record
from kshot.io.whole import is_whole
from kshot.types import Shot
from tests.support.files import mask, square
from tests.support.runs import contents

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def task(toy: kshot.Segmenter, shots: list[Shot]) -> kshot.Task:
    return toy.fit(shots)


def test_killed_at_random_moments_and_resumed_equals_undisturbed() -> None:
    command = [sys.executable, "-m", "benchmarks.reliability.kills", "--kills", "10", "--images", "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["identical"] and json.loads(done.stdout)["kills"] == 10


def test_two_runs_on_one_folder_refuse_each_other(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with RunFolder(out), pytest.raises(OutputError, match="another run is writing into it"):
        label_folder(toy, task, image_folder, out)
    assert label_folder(toy, task, image_folder, out).processed == 4


def test_the_lock_of_a_dead_process_is_taken_over(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    holder = (
        "import time; from filelock import FileLock\n"
        f"lock = FileLock({str(out / '.lock')!r}); lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    out.mkdir()
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another run"):
            label_folder(toy, task, image_folder, out)
        process.kill()
    assert label_folder(toy, task, image_folder, out).processed == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"export": Export(instances="components")}, "--instances"),
        ({"export": Export(polygons=True)}, "--polygons"),
        ({"formats": ["png"]}, "--format"),
    ],
)
def test_resuming_with_other_options_is_refused(
    toy: kshot.Segmenter,
    task: kshot.Task,
    image_folder: Path,
    tmp_path: Path,
    changed: dict[str, Any],
    message: str,
) -> None:
    label_folder(toy, task, image_folder, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(SettingError, match=message):
        label_folder(toy, task, image_folder, tmp_path / "out", resume=True, **changed)
    with pytest.raises(SettingError, match="folder of images"):
        label_folder(toy, task, image_folder / "sub", tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == before


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, room = tmp_path / "out", 6
    replace = Path.replace

    def until_full(self: Path, target: Path) -> Path:
        nonlocal room
        room -= self.name.startswith(".kshot-")
        if room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", until_full)
    with pytest.raises(OutputError, match=r"No space left on device.*continue with --resume"):
        label_folder(toy, task, image_folder, out, formats=("png", "overlay", "coco"))
    monkeypatch.undo()
    assert len(read_manifest(out)) == 2 and not list(out.rglob(".kshot-*"))
    label_folder(toy, task, image_folder, out, formats=("png", "overlay", "coco"), resume=True)
    label_folder(toy, task, image_folder, tmp_path / "whole", formats=("png", "overlay", "coco"))
    assert contents(out) == contents(tmp_path / "whole")


def test_a_name_that_is_too_long_for_a_result_fails_alone(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    (image_folder / "b.png").rename(image_folder / f"{'b' * 251}.png")
    summary = label_folder(toy, task, image_folder, tmp_path / "out", export=Export(instances="components"))
    assert (summary.failed, summary.processed) == (1, 4) and "too long" in summary.failures[0]["reason"]


def test_inputs_are_never_written_to(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    def state() -> dict[str, tuple[bytes, int]]:
        files = [path for path in sorted(image_folder.rglob("*")) if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = state()
    formats = ("png", "overlay", "scores", "coco", "labelme", "label_studio", "cvat", "yolo", "voc")
    for overwrite in (False, True):
        label_folder(toy, task, image_folder, tmp_path / "out", formats=formats, overwrite=overwrite)
    assert state() == before
    with pytest.raises(InputError, match="lies in the output folder"):
        label_folder(toy, task, image_folder, tmp_path)


@pytest.mark.parametrize("gone", ["", "masks", "manifest.jsonl"])
def test_results_that_are_removed_during_the_run_end_it(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, gone: str
) -> None:
    out = tmp_path / "out"

    def remove(_: Record, done: int, __: int) -> None:
        if done == 2:
            victim = out / gone
            shutil.rmtree(victim) if victim.is_dir() else victim.unlink()

    with pytest.raises(OutputError, match="removed"):
        label_folder(toy, task, image_folder, out, progress=remove)
    again = {"resume": True} if gone == "masks" else {"overwrite": True}
    label_folder(toy, task, image_folder, out, **again)  # type: ignore[arg-type]
    label_folder(toy, task, image_folder, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["masks/a.png", "overlays/a.jpg", "scores/a.npz", "instances/a.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_result_that_is_not_whole_is_made_again(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, name: str, damage: str
) -> None:
    out, how = tmp_path / "out", {"formats": ("png", "overlay", "scores"), "export": Export(instances="components")}
    label_folder(toy, task, image_folder, out, **how)  # type: ignore[arg-type]
    before, path = contents(out), out / name
    data = path.read_bytes()
    assert all(is_whole(out / file) for record in read_manifest(out) for file in record["outputs"].values())
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[:-1], "other": b"not a result"}[damage])
    assert label_folder(toy, task, image_folder, out, resume=True, **how).processed == 1  # type: ignore[arg-type]
    assert contents(out) == before


def test_a_mask_with_a_changed_byte_is_not_whole(tmp_path: Path) -> None:
    path = mask(tmp_path / "a.png", square())
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert not is_whole(path), place
    path.write_bytes(data)
    assert is_whole(path)


def test_files_are_flushed_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    write_text(tmp_path / "a.txt", "a")
    assert not flushed
    monkeypatch.setenv("KSHOT_FLUSH", "1")
    write_text(tmp_path / "a.txt", "b")
    assert len(flushed) == 2 and (tmp_path / "a.txt").read_text() == "b"


def test_leftovers_of_a_kill_are_removed(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    left = tmp_path / "out" / "masks" / ".kshot-0123.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    label_folder(toy, task, image_folder, tmp_path / "out")
    assert not left.exists()
