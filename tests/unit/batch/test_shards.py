"""Shards of one folder on several machines leave what one run leaves; images with labels can be left out."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.batch import Shard, label_folder, plan, read_manifest
from kshot.batch.run_folder import RunFolder
from kshot.batch.stages import overlapped
from kshot.errors import OutputError, SettingError
from kshot.formats.base import annotated
from kshot.types import Shot
from tests.support.drawing import draw
from tests.support.runs import contents

FORMATS = ("png", "overlay", "coco")


@pytest.fixture
def task(toy: kshot.Segmenter, shots: list[Shot]) -> kshot.Task:
    return toy.fit(shots)


def test_shards_together_leave_what_one_run_leaves(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    (image_folder / "broken.jpg").write_bytes(b"no image")
    total = sum(
        label_folder(toy, task, image_folder, out, formats=FORMATS, shard=Shard(number, 3)).processed
        for number in (2, 1, 3)
    )
    label_folder(toy, task, image_folder, whole, formats=FORMATS)
    assert total == 5 and contents(out, by_shards=True) == contents(whole, by_shards=True)
    with pytest.raises(SettingError, match="--resume"):
        label_folder(toy, task, image_folder, out, formats=FORMATS, shard=Shard(1, 3))
    assert label_folder(toy, task, image_folder, out, formats=FORMATS, resume=True).skipped == 4
    assert contents(out, by_shards=True) == contents(whole, by_shards=True) and not list(out.glob("manifest-*"))


def test_a_shard_and_a_run_of_the_whole_refuse_each_other(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    settings = {"task": task.digest()}
    with RunFolder(tmp_path / "a"), pytest.raises(OutputError, match="another run"):
        label_folder(toy, task, image_folder, tmp_path / "a", shard=Shard(1, 2))
    with RunFolder(tmp_path / "b", Shard(1, 2)) as first:
        first.open(settings, resume=False, overwrite=False)
        with RunFolder(tmp_path / "b", Shard(2, 2)):
            pass
        for shard in (None, Shard(1, 2)):
            with pytest.raises(OutputError, match="another run"):
                RunFolder(tmp_path / "b", shard).__enter__()
    label_folder(toy, task, image_folder, tmp_path / "c")
    with pytest.raises(SettingError, match="--resume"):
        label_folder(toy, task, image_folder, tmp_path / "c", shard=Shard(1, 2))
    with pytest.raises(SettingError, match="others may be at work"):
        label_folder(toy, task, image_folder, tmp_path / "c", shard=Shard(1, 2), overwrite=True)


def test_each_image_is_in_one_shard(image_folder: Path, tmp_path: Path) -> None:
    jobs = plan(image_folder, tmp_path / "out")
    for count in (1, 2, 5):
        assert all(sum(Shard(i, count).holds(job) for i in range(1, count + 1)) == 1 for job in jobs)
    with pytest.raises(SettingError, match="1 <= I <= N"):
        Shard(3, 2)


def test_a_shard_that_runs_is_in_the_manifest(task: kshot.Task, tmp_path: Path) -> None:
    with RunFolder(tmp_path, Shard(1, 2)) as folder:
        folder.open({"task": task.digest()}, resume=False, overwrite=False)
        folder.manifest.write_text(json.dumps({"input": "a.jpg", "status": "empty"}) + "\n")
        assert [record["input"] for record in read_manifest(tmp_path)] == ["a.jpg"]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_steps_overlap_and_results_keep_their_order(workers: int) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def slow(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (number % 3))
        with lock:
            running -= 1
        return number

    taken: list[int] = []

    def numbers() -> object:
        for number in range(30):
            taken.append(number)
            yield number

    got = []
    for number in overlapped(numbers(), slow, slow, slow, workers):  # type: ignore[arg-type]
        got.append(number)
        assert len(taken) - len(got) <= 3 * workers + 1  # bounded: memory does not grow with the folder
    assert got == list(range(30)) and most <= 2 * workers + 1
    assert (most > 1) == (workers > 0)


def test_what_waits_is_finished_before_a_pause() -> None:
    done: list[int] = []

    def items() -> object:
        yield from (1, 2, None)
        assert done == [1, 2]
        yield 3

    for number in overlapped(items(), int, int, int, 2):  # type: ignore[arg-type, call-overload]
        done += [number]
    assert done == [1, 2, 3]


def test_an_error_in_any_step_ends_the_iteration() -> None:
    for place in range(3):
        steps = [int, int, int]
        steps[place] = lambda number: 1 // (number - 3)  # type: ignore[assignment]
        with pytest.raises(ZeroDivisionError):
            list(overlapped(range(10), *steps, workers=2))


def test_workers_change_nothing_in_the_files(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    for workers in (0, 3):
        label_folder(toy, task, image_folder, tmp_path / str(workers), formats=FORMATS, workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "3")


def test_images_with_labels_are_left_out(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    assert annotated(image_folder) == frozenset()
    Image.fromarray(draw(3)[1].astype(np.uint8) * 255).save(image_folder / "a.png")  # the mask of a.jpg
    skip = annotated(image_folder)
    assert {path.name for path in skip} == {"a.jpg", "a.png"}
    label_folder(toy, task, image_folder, tmp_path / "out", skip=skip)
    assert [r["input"] for r in read_manifest(tmp_path / "out")] == ["b.png", "none.jpg", "sub/a.jpg"]


def test_labelme_files_count_when_they_hold_shapes(image_folder: Path) -> None:
    shape = {"label": "disc", "points": [[1, 1], [60, 1], [60, 60]], "shape_type": "polygon", "group_id": None}
    for name, shapes in (("a.jpg", [shape]), ("none.jpg", [])):
        about = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None}
        about |= {"imageHeight": 96, "imageWidth": 128}
        (image_folder / name).with_suffix(".json").write_text(json.dumps(about))
    assert {path.name for path in annotated(image_folder)} == {"a.jpg"}
