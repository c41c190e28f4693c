"""Films in the layouts of DAVIS: found, measured object by object, gone on with, and refused where they do not fit."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import kshot
from kshot.errors import DatasetError, SettingError
from kshot.evaluation import FilmsResult, evaluate_films
from kshot.evaluation.film_folders import find_films
from tests.support.film_folders import frame, make_davis, make_two_folders, save_mask


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_davis(tmp_path_factory.mktemp("davis"), {"bear": 6, "ant": 5})


@pytest.fixture(scope="module")
def result(toy: kshot.Segmenter, davis: Path) -> FilmsResult:
    return evaluate_films(toy, davis)


def test_each_object_of_each_film_is_measured(result: FilmsResult) -> None:
    assert [(one.film, one.label) for one in result.objects] == [("ant", 1), ("ant", 2), ("bear", 1), ("bear", 2)]
    assert all(0.6 < one.j.mean <= 1 and 0.3 < one.f.mean <= 1 for one in result.objects)
    figures = result.figures
    assert figures["j_mean"] == pytest.approx(np.mean([one.j.mean for one in result.objects]))
    assert figures["j_and_f"] == pytest.approx((figures["j_mean"] + figures["f_mean"]) / 2)
    assert result.warnings == () and result.settings["memory"] == 5


def test_the_first_and_the_last_true_mask_do_not_count(toy: kshot.Segmenter, tmp_path: Path) -> None:
    root = make_davis(tmp_path, {"a": 4})
    before = evaluate_films(toy, root, memory=0)
    last = root / "Annotations/480p/a/00003.png"
    save_mask(last, np.full_like(frame(3)[1], 1))
    assert evaluate_films(toy, root, memory=0).objects == before.objects
    save_mask(root / "Annotations/480p/a/00002.png", np.full_like(frame(2)[1], 1))
    after = evaluate_films(toy, root, memory=0)
    assert after.objects[0].j.mean < before.objects[0].j.mean - 0.2
    assert after.objects[1].j.mean == pytest.approx(before.objects[1].j.mean / 2, abs=0.1)  # gone from one of two


def test_a_list_says_which_films(davis: Path, tmp_path: Path) -> None:
    assert [film.name for film in find_films(davis)] == ["ant", "bear"]
    root = make_davis(tmp_path, {"bear": 3, "ant": 3})
    for year, text in (
        ("480p", "/JPEGImages/480p/ant/00000.jpg /Annotations/480p/ant/00000.png\n"),
        ("2017", "bear\n"),
    ):
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "val.txt").write_text(text)
    assert [film.name for film in find_films(root)] == ["bear"]
    (root / "ImageSets/2017/val.txt").unlink()
    assert [film.name for film in find_films(root)] == ["ant"]
    (root / "ImageSets/480p/val.txt").write_text("cat\n")
    with pytest.raises(DatasetError, match="lacks cat"):
        find_films(root)


def test_two_folders_are_a_film_and_frames_before_the_first_mask_are_none(tmp_path: Path) -> None:
    root = make_two_folders(tmp_path / "clip", 6)
    (root / "masks" / "000.png").unlink()
    (root / "masks" / "003.png").unlink()
    (film,) = find_films(root)
    assert film.name == "clip" and [path.name for path in film.frames] == [f"{n:03}.png" for n in range(1, 6)]
    assert [path.stem for path in film.masks] == ["001", "002", "004", "005"]
    assert set(np.unique(film.mask(film.frames[0]))) == {0, 1}
    (again,) = find_films(root.parent)
    assert again == film


def test_the_memory_is_used(toy: kshot.Segmenter, davis: Path, result: FilmsResult) -> None:
    alone = evaluate_films(toy, davis, memory=0)
    assert alone.settings["memory"] == 0
    assert [one.j for one in alone.objects] != [one.j for one in result.objects]
    with pytest.raises(SettingError, match=r"expected 0\.\.64"):
        evaluate_films(toy, davis, memory=65)


def test_a_run_goes_on_and_is_refused_for_others(
    toy: kshot.Segmenter, result: FilmsResult, davis: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", list[tuple[int, int, float]]()
    first = evaluate_films(toy, davis, out=out, progress=lambda *step: told.append(step))
    assert first == result and [step[:2] for step in told] == [(1, 2), (2, 2)]
    assert told[-1][2] == pytest.approx(result.figures["j_and_f"])
    ant, _ = (out / "films.jsonl").read_text().splitlines()
    (out / "films.jsonl").write_text(ant + '\n{"film": "bear", "objects": [{"label": 1')
    assert evaluate_films(toy, davis, out=out) == result
    (out / "films.jsonl").write_text(ant.replace('"j":[', '"j":[2,') + "\n")  # no J: counts as not there
    assert evaluate_films(toy, davis, out=out) == result
    summary = json.loads((out / "results.json").read_text())
    assert summary["j_and_f"] == result.figures["j_and_f"] and len(summary["objects"]) == 4
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["film"] for row in rows] == ["ant", "ant", "bear", "bear"]
    assert float(rows[0]["j_mean"]) == pytest.approx(result.objects[0].j.mean, abs=1e-6)
    with pytest.raises(SettingError, match="other settings, or over other films"):
        evaluate_films(toy, davis, memory=1, out=out)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "results.csv").write_text("mine")
    with pytest.raises(SettingError, match=r"holds results\.csv, which no run made"):
        evaluate_films(toy, davis, out=tmp_path / "theirs")


def test_objects_too_small_or_shown_later_are_said(toy: kshot.Segmenter, tmp_path: Path) -> None:
    root = make_davis(tmp_path, {"a": 4})
    masks = sorted((root / "Annotations/480p/a").iterdir())
    for place, path in enumerate(masks):
        labels = frame(place)[1]
        labels[0, :2] = 7 if place == 0 else 9
        save_mask(path, labels)
    found = evaluate_films(toy, root)
    assert [one.label for one in found.objects] == [1, 2, 7]
    assert found.objects[0].j.mean > 0.6 and found.objects[2].j.mean == 1.0  # rightly not found: it is gone
    assert found.warnings == (
        "a: object 7 covers no patch in its first frame, and counts as not found",
        "a: objects [9] are first shown later, and left out",
    )
    for path in masks:
        save_mask(path, np.where(np.arange(64 * 96).reshape(64, 96) == 0, np.uint8(3), np.uint8(0)))
    assert evaluate_films(toy, root).objects[0].j.mean == 0.0


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: (root / "JPEGImages/480p/a/00001.jpg").unlink(), r"00001\.png of the film a: no frame"),
        (
            lambda root: [(root / f"Annotations/480p/a/0000{n}.png").unlink() for n in (0, 1)],
            "2 true masks of the film a",
        ),
        (lambda root: (root / "Annotations").rename(root / "Masks"), r"no film with true masks here; looked for"),
        (lambda root: save_mask(root / "Annotations/480p/a/00000.png", frame(0)[1] * 0), "of a shows no object"),
        (lambda root: save_mask(root / "Annotations/480p/a/00001.png", frame(0)[1][:9]), r"00001\.png: the mask of"),
    ],
    ids=["frame", "masks", "folder", "empty", "size"],
)
def test_films_that_do_not_fit_are_refused(spoil, told: str, toy: kshot.Segmenter, tmp_path: Path) -> None:
    root = make_davis(tmp_path, {"a": 4})
    spoil(root)
    with pytest.raises(kshot.errors.KshotError, match=told):
        evaluate_films(toy, root)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        find_films(tmp_path / "none")
