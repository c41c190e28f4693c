"""A run that is doubtful as a whole says so, in the summary and in the report, and another one does not."""

import json
from pathlib import Path

import pytest
from PIL import Image

import kshot
from kshot.annotations.advice import advice_of, left_out_of
from kshot.batch import label_folder
from kshot.report import write_report
from kshot.types import Shot
from tests.support.commands import run
from tests.support.drawing import draw
from tests.support.squares import predict_squares


def record(*, present: float = 0.9, pixels: int = 100, score: float = 0.8, **more: float) -> dict:
    facts = {"present": present, "pixels": pixels, "objects": int(pixels > 0), "score": score}
    return {"input": "a.jpg", "status": "done", "classes": {"cat": facts} | dict.fromkeys(more, facts)}


FAILED = {"input": "b.jpg", "status": "failed", "reason": "damaged"}


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([record()] * 9, ""),
        ([record(score=0.55)] * 9, "median score is 0.55: give more supports"),
        ([record(score=0.55)] * 5 + [record()] * 4, "median score is 0.55"),
        ([record(score=0.55)] * 4 + [record()] * 5, ""),
        ([record(score=0.55, dog=1)] * 9, ""),  # the best of several classes
        ([record(score=0.4, dog=1)] * 9, "median score is 0.40"),
        ([record(score=0.55)] * 2, ""),  # too few to tell
        ([record(present=0.2, pixels=0)] * 9, ""),  # nothing there, nothing marked
        ([record(pixels=0)] * 2 + [record()] * 7, ""),
        ([record(pixels=0)] * 3 + [record()] * 12, "in 3 of 15 images a class is held to be there, but no pixel"),
        ([record(pixels=0)] * 3 + [record()] * 13, ""),
        ([FAILED] * 5, ""),
        ([], ""),
    ],
)
def test_what_a_run_is_told(records: list, says: str) -> None:
    told = advice_of(records, 0.5)
    assert says in told and bool(says) == bool(told)


def test_summary_and_report_say_it(
    toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, mask = draw(2)
    task = toy.fit([Shot(shots[0].image, mask=shots[0].mask, label="a"), Shot(picture, mask=mask, label="b")])
    task.save(tmp_path / "ab.kshot")
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(3):
        Image.fromarray(draw(seed)[0]).save(images / f"{seed}.png")
    predict_squares(monkeypatch)
    sure = label_folder(toy, task, images, tmp_path / "sure")
    assert sure.advice == "" and "Look:" not in write_report(tmp_path / "sure").read_text()
    asked = ["predict", tmp_path / "ab.kshot", images, "--min-area", "500"]  # b has no object so large, and is present
    said = run(*asked, "-o", tmp_path / "out").stderr
    assert "look: in 3 of 3 images a class is held to be there" in said.replace("\n", " ")
    assert "Look: in 3 of 3 images" in (tmp_path / "out/report.html").read_text()
    assert "3 of 3" in json.loads(run(*asked, "-o", tmp_path / "json", "--json").stdout)["advice"]


@pytest.mark.parametrize("asked", [["--instances", "components"], ["--table", "objects.csv"]])
def test_objects_that_are_too_small_are_counted_and_said(
    toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """Of the seven squares of each image 20 x 20 and 30 x 30 pixels are enough; or all are."""
    picture, mask = draw(2)
    task = toy.fit([Shot(shots[0].image, mask=shots[0].mask, label="a"), Shot(picture, mask=mask, label="b")])
    task.save(tmp_path / "ab.kshot")
    (tmp_path / "images").mkdir()
    for seed in range(2):
        Image.fromarray(draw(seed)[0]).save(tmp_path / f"images/{seed}.png")
    predict_squares(monkeypatch)
    command = ["predict", tmp_path / "ab.kshot", tmp_path / "images"]
    said = " ".join(run(*command, "--min-area", "400", *asked, "-o", tmp_path / "out").stderr.split())
    assert "objects: 10 pieces smaller than min_area (--min-area) 400 left out as specks" in said
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["specks"] for line in lines] == [5, 5]
    assert "specks" not in run(*command, "--min-area", "0", *asked, "-o", tmp_path / "all").stderr
    assert "specks" not in run(*command, "--min-area", "400", "-o", tmp_path / "plain").stderr  # nobody asked


def test_the_default_limit_is_named() -> None:
    assert "1 piece smaller than two patch tokens" in left_out_of([record() | {"specks": 1}, FAILED], None)
    assert left_out_of([record() | {"specks": 0}, record()], None) == ""
