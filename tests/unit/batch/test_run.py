"""Folders: a line per image whatever happens, and runs that can be stopped and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from pycocotools.coco import COCO

import kshot
from kshot.annotations.model import Export
from kshot.batch import inputs, label_folder, plan, read_manifest
from kshot.errors import InputError, OutputError, SettingError, UnknownNameError
from kshot.io.images import read_mask
from kshot.types import Shot
from tests.support.commands import TOY, run
from tests.support.drawing import draw
from tests.support.runs import contents

ALL = ("png", "overlay", "scores", "coco")


@pytest.fixture
def task(toy: kshot.Segmenter, shots: list[Shot]) -> kshot.Task:
    return toy.fit(shots)


def test_outputs_mirror_the_inputs(toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = label_folder(toy, task, image_folder, out, formats=ALL)
    assert (summary.processed, summary.empty, summary.failed, summary.total) == (4, 1, 0, 4)
    assert summary.objects >= 3
    for name in ("a", "b", "none", "sub/a"):
        for folder, suffix in (("masks", ".png"), ("overlays", ".jpg"), ("scores", ".npz")):
            assert (out / folder / f"{name}{suffix}").is_file()
    assert np.array_equal(
        read_mask(out / "masks" / "sub" / "a.png"), toy.predict(task, image_folder / "sub/a.jpg").mask
    )
    assert not list(out.rglob(".kshot-*"))


def test_each_image_is_read_and_decoded_once_whatever_is_written(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    read: list[Path] = []
    decoded: list[str] = []
    read_bytes, load = Path.read_bytes, ImageFile.ImageFile.load

    def counted_read(self: Path) -> bytes:
        read.append(self)
        return read_bytes(self)

    def counted_load(self: ImageFile.ImageFile) -> Any:
        if self.tile and out not in Path(self.filename).parents:  # masks are read back for the formats of folders
            decoded.append(self.filename)
        return load(self)

    monkeypatch.setattr(Path, "read_bytes", counted_read)
    monkeypatch.setattr(ImageFile.ImageFile, "load", counted_load)
    formats = ("png", "overlay", "scores", "coco", "voc", "yolo", "labelme", "cvat", "label_studio")
    summary = label_folder(toy, task, image_folder, out, formats=formats, export=Export(instances="components"))
    inputs = sorted(path for path in image_folder.rglob("*") if path.is_file())
    assert summary.processed == len(inputs) == 4 and summary.failed == 0
    assert sorted(path for path in read if image_folder in path.parents) == inputs
    assert decoded == [""] * 4  # of the bytes that were read


def test_the_manifest_says_it_all(toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path) -> None:
    label_folder(toy, task, image_folder, tmp_path / "out", notes={"command": "kshot label"})
    records = {record["input"]: record for record in read_manifest(tmp_path / "out")}
    assert list(records) == ["a.jpg", "b.png", "none.jpg", "sub/a.jpg"]
    assert records["none.jpg"]["status"] == "empty" and records["a.jpg"]["status"] == "done"
    facts = records["a.jpg"]["classes"]["disc"]
    assert facts["present"] > 0.5 and facts["pixels"] > 1000 and facts["objects"] == 1 and 0.5 < facts["score"] <= 1
    assert len(records["a.jpg"]["sha256"]) == 64 and records["a.jpg"]["size_hw"] == [96, 128]
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (
        settings["command"] == "kshot label" and settings["task"] == task.digest() and settings["classes"] == ["disc"]
    )


def test_coco_is_read_back_by_pycocotools(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    label_folder(toy, task, image_folder, tmp_path / "out", formats=["coco"])
    coco = COCO(tmp_path / "out" / "coco.json")
    by_name = {image["file_name"]: image["id"] for image in coco.dataset["images"]}
    (annotation,) = coco.loadAnns(coco.getAnnIds(by_name["sub/a.jpg"]))
    assert annotation["iscrowd"] == 0 and 0.5 < annotation["score"] <= 1
    assert np.array_equal(coco.annToMask(annotation), read_mask(tmp_path / "out" / "masks" / "sub" / "a.png"))


def test_a_broken_image_is_one_failed_line(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    data = (image_folder / "a.jpg").read_bytes()
    (image_folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (image_folder / "text.png").write_text("no image")
    summary = label_folder(toy, task, image_folder, tmp_path / "out", formats=ALL)
    assert (summary.processed, summary.failed) == (6, 2)
    failed = {r["input"]: r["reason"] for r in read_manifest(tmp_path / "out") if r["status"] == "failed"}
    assert "truncated" in failed["cut.jpg"] and "not an image" in failed["text.png"]


def test_an_unforeseen_error_is_a_failed_line_too(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(toy), "decide", lambda *_: 1 / 0)
    summary = label_folder(toy, task, image_folder, tmp_path / "out")
    assert summary.failed == 4 and "unexpected ZeroDivisionError" in summary.failures[0]["reason"]


def test_the_same_stem_twice_keeps_both(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    Image.fromarray(draw(8)[0]).save(image_folder / "a.png")
    stems = [job.stem for job in plan(image_folder, tmp_path / "out")]
    assert stems == ["a.jpg", "a.png", "b", "none", "sub/a"]
    label_folder(toy, task, image_folder, tmp_path / "out")
    assert (tmp_path / "out/masks/a.jpg.png").is_file() and (tmp_path / "out/masks/a.png.png").is_file()


def test_images_that_come_later_take_no_mask_of_those_before(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    label_folder(toy, task, image_folder, out)
    before = contents(out)
    for name in ("a.png", "a.jpg.png", "A.JPG"):  # a.jpg was alone, and its mask is a.png
        Image.fromarray(draw(7)[0]).save(image_folder / name)
    label_folder(toy, task, image_folder, out, resume=True)
    masks = [record["mask"] for record in read_manifest(out)]
    assert len({mask.casefold() for mask in masks}) == len(masks) == 7
    assert all(contents(out)[name] == data for name, data in before.items() if name.startswith("masks/"))


def test_masks_that_an_older_version_gave_to_two_images_are_made_again(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    label_folder(toy, task, image_folder, out)
    shared = [record | {"mask": "masks/a.png"} for record in read_manifest(out)]  # type: ignore[operator]
    (out / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in shared))
    assert label_folder(toy, task, image_folder, out, resume=True).processed == 4
    assert len({record["mask"] for record in read_manifest(out)}) == 4


ODD = [b"a\nb.jpg", b"a\\b.jpg", "a\u2028b.jpg".encode(), b"a\xffb.jpg", b"\x1b[31m.jpg"]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_costs_one_image(support_folder: Path, image_folder: Path, tmp_path: Path, name: bytes) -> None:
    formats = "png,overlay,scores,coco,yolo,voc,labelme,cvat,label-studio"
    how = ["label", support_folder, image_folder, "-o", tmp_path / "out", "--format", formats, *TOY]
    target = image_folder / os.fsdecode(name)
    target.write_bytes((image_folder / "a.jpg").read_bytes())
    assert len(json.loads(run(*how, "--dry-run", "--json").stdout)["failures"]) == 1
    done = run(*how, "--json", code=3)
    assert json.loads(done.stdout)["failed"] == 1 and "rename it" in json.loads(done.stdout)["failures"][0]["reason"]
    records = read_manifest(tmp_path / "out")
    assert [record["status"] for record in records].count("failed") == 1 and len(records) == 5
    for output in ("report.html", "coco.json", "yolo/data.yaml", "voc/labelmap.txt", "labelme/a.json", "cvat.xml"):
        (tmp_path / "out" / output).read_text(encoding="utf-8")
    target.rename(image_folder / "fine.jpg")
    run(*how, "--resume")
    run(*how[:4], tmp_path / "whole", *how[5:])
    drop = ("settings.json", "report.html", "supports")
    left, right = contents(tmp_path / "out"), contents(tmp_path / "whole")
    assert left.keys() == right.keys()
    assert [path for path, data in left.items() if data != right[path] and not path.startswith(drop)] == []


def test_a_name_that_begins_with_a_dash_is_one_like_any_other(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    (image_folder / "a.jpg").rename(image_folder / "-a.jpg")
    assert label_folder(toy, task, image_folder, tmp_path / "out", formats=ALL).failed == 0
    assert (tmp_path / "out/masks/-a.png").is_file()


def test_what_lies_in_the_output_is_no_input(toy: kshot.Segmenter, task: kshot.Task, image_folder: Path) -> None:
    label_folder(toy, task, image_folder, image_folder / "out")
    assert label_folder(toy, task, image_folder, image_folder / "out", overwrite=True).total == 4


def test_a_second_run_needs_leave(toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path) -> None:
    label_folder(toy, task, image_folder, tmp_path / "out")
    with pytest.raises(SettingError, match=r"continue it \(resume, --resume\), or overwrite it \(--overwrite\)"):
        label_folder(toy, task, image_folder, tmp_path / "out")
    other = task.with_shots([Shot(draw(9)[0], mask=draw(9)[1], label="disc")], toy)
    with pytest.raises(SettingError, match="another task"):
        label_folder(toy, other, image_folder, tmp_path / "out", resume=True)
    assert label_folder(toy, other, image_folder, tmp_path / "out", overwrite=True).processed == 4


def test_resume_redoes_what_is_missing_or_failed(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (image_folder / "late.jpg").write_text("still copying")
    label_folder(toy, task, image_folder, out, formats=ALL)
    Image.fromarray(draw(8)[0]).save(image_folder / "late.jpg")
    (out / "masks" / "b.png").unlink()
    summary = label_folder(toy, task, image_folder, out, formats=ALL, resume=True)
    assert (summary.processed, summary.skipped, summary.failed) == (2, 3, 0)
    whole = tmp_path / "whole"
    label_folder(toy, task, image_folder, whole, formats=ALL)
    assert contents(out) == contents(whole)


def test_interrupted_and_resumed_equals_undisturbed(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    def stop(record: dict, through: int, total: int) -> None:
        if through == 2:
            raise KeyboardInterrupt

    out, whole = tmp_path / "out", tmp_path / "whole"
    summary = label_folder(toy, task, image_folder, out, formats=ALL, progress=stop)
    assert summary.interrupted and summary.processed == 2 and len(read_manifest(out)) == 2
    label_folder(toy, task, image_folder, out, formats=ALL, resume=True)
    label_folder(toy, task, image_folder, whole, formats=ALL)
    assert contents(out) == contents(whole)


def test_a_manifest_line_that_was_cut_off_is_done_again(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    label_folder(toy, task, image_folder, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_text(manifest.read_text()[:-30])
    assert label_folder(toy, task, image_folder, tmp_path / "out", resume=True).processed == 1


def test_limit_and_single_files(toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path) -> None:
    assert label_folder(toy, task, image_folder, tmp_path / "a", limit=2).total == 2
    assert label_folder(toy, task, image_folder / "sub/a.jpg", tmp_path / "b").total == 1
    label_folder(toy, task, image_folder / "s*" / "*.jpg", tmp_path / "c")
    assert (tmp_path / "c" / "masks" / "sub" / "a.png").is_file()


def test_a_limit_drops_nothing_that_was_done(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    label_folder(toy, task, image_folder, tmp_path / "out", formats=ALL)
    before = contents(tmp_path / "out")
    summary = label_folder(toy, task, image_folder, tmp_path / "out", formats=ALL, resume=True, limit=1)
    assert (summary.processed, summary.skipped) == (0, 1)
    assert contents(tmp_path / "out") == before and len(read_manifest(tmp_path / "out")) == 4


def test_where_it_cannot_write_it_says_so(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        label_folder(toy, task, image_folder, tmp_path / "file" / "out")


def test_nothing_to_label_is_refused(toy: kshot.Segmenter, task: kshot.Task, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for images in (tmp_path / "empty", tmp_path / "nowhere", tmp_path / "*.tif"):
        with pytest.raises(InputError):
            label_folder(toy, task, images, tmp_path / "out")
    with pytest.raises(UnknownNameError, match="no format"):
        label_folder(toy, task, tmp_path / "empty", tmp_path / "out", formats=["bmp"])
    with pytest.raises(SettingError, match=r"no manifest\.jsonl"):
        read_manifest(tmp_path / "empty")


def test_watching_takes_what_appears(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for path in image_folder.rglob("*.*"):
        os.utime(path, (1, 1))  # what was written to just now may be half a file, and is left for the next round

    def tick(seconds: float) -> None:
        if "new.jpg" in seen:
            raise KeyboardInterrupt
        Image.fromarray(draw(8)[0]).save(image_folder / "new.jpg")
        os.utime(image_folder / "new.jpg", (1, 1))

    monkeypatch.setattr(inputs.time, "sleep", tick)
    summary = label_folder(
        toy, task, image_folder, tmp_path / "out", watch=True, progress=lambda record, *_: seen.append(record["input"])
    )
    assert seen[-1] == "new.jpg" and summary.processed == 5 and not summary.interrupted


def test_watching_takes_files_dated_ahead_of_the_clock_once_they_stay_as_they_are(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera or another machine whose clock is ahead; the clock of the test goes on by 0.6 s a round."""
    seen: list[str] = []
    rounds: list[list[str]] = []
    ahead = 2**32
    for path in image_folder.rglob("*.*"):
        os.utime(path, (1, 1))
    new = image_folder / "new.png"

    def tick(seconds: float) -> None:
        rounds.append([name for name in seen if name == "new.png"])
        if len(rounds) <= 3:  # it grows for three rounds
            Image.fromarray(draw(8, (96, 128 + len(rounds)))[0]).save(new)
            os.utime(new, (ahead, ahead))
        if rounds[-1] or len(rounds) > 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(inputs.time, "sleep", tick)
    monkeypatch.setattr(inputs.time, "monotonic", lambda: 0.6 * len(rounds))
    label_folder(
        toy, task, image_folder, tmp_path / "out", watch=True, workers=0, progress=lambda r, *_: seen.append(r["input"])
    )
    # Written last in round 3, seen so in round 4, and in round 5, 0.6 s later, not yet for a second; then it is taken.
    assert len(rounds) == 6 and seen.count("new.png") == 1
    assert {r["input"]: r for r in read_manifest(tmp_path / "out")}["new.png"]["size_hw"] == [96, 131]


def test_ctrl_c_ends_the_command_in_order(support_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    """A real SIGINT to a real process: summary on stdout, exit code 130, and --resume finishes the run."""
    # Far more than are done before the signal arrives, however busy the machine is.
    Image.fromarray(draw(20, (600, 800))[0]).save(image_folder / "big.png")
    for number in range(400):
        (image_folder / f"{number:03}.png").hardlink_to(image_folder / "big.png")
    # A background shell hands down an ignored SIGINT; a person's terminal does not.
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from kshot.cli import main; main()"
    )
    command = [sys.executable, "-c", start, "label", str(support_folder), str(image_folder)]
    command += ["-o", str(tmp_path / "out"), "--backbone", "toy"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    manifest = tmp_path / "out" / "manifest.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (manifest.exists() and manifest.read_text().count("\n") >= 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "processed" in stdout and "continue with: kshot label" in stderr
    before = len(read_manifest(tmp_path / "out"))
    done = subprocess.run([*command, "--resume", "--limit", "3"], capture_output=True, text=True, check=True)
    assert "done before" in done.stdout and 2 <= before < 400
    assert len(read_manifest(tmp_path / "out")) >= before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_gives_what_single_images_give(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, workers: int
) -> None:
    (image_folder / "broken.jpg").write_bytes(b"no image")
    calls: list[int] = []
    together = toy.features_of

    def counted(images, size):  # type: ignore[no-untyped-def]
        calls.append(len(images))
        return together(images, size)

    alone = label_folder(toy, task, image_folder, tmp_path / "alone", workers=workers)
    toy.features_of = counted  # type: ignore[method-assign]
    try:
        batched = label_folder(toy, task, image_folder, tmp_path / "batched", workers=workers, batch=4)
    finally:
        del toy.features_of
    assert max(calls) > 1
    assert (batched.total, batched.failed, batched.processed) == (alone.total, 1, alone.processed)
    for one, other in zip(read_manifest(tmp_path / "alone"), read_manifest(tmp_path / "batched"), strict=True):
        assert one["input"] == other["input"]
        if one["status"] != "failed":
            masks = [np.array(Image.open(tmp_path / run / one["outputs"]["png"])) for run in ("alone", "batched")]
            assert (masks[0] == masks[1]).mean() > 0.999


def test_a_batch_that_fails_is_done_one_by_one(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    def full(images):  # type: ignore[no-untyped-def]
        raise MemoryError

    toy.features_of = full  # type: ignore[method-assign]
    try:
        summary = label_folder(toy, task, image_folder, tmp_path / "out", batch=4)
    finally:
        del toy.features_of
    assert summary.failed == 0 and summary.processed == summary.total


def test_a_batch_of_none_is_refused(toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="batch of 0"):
        label_folder(toy, task, image_folder, tmp_path / "out", batch=0)
