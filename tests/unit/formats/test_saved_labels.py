"""Thresholds that are decided on what a run saved: the same as a run with them, without fitting or predicting anew."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.annotations.model import Export
from kshot.batch import label_folder, read_manifest
from kshot.errors import SettingError
from kshot.formats import kshot_run
from kshot.formats.base import read_labels
from kshot.io.images import read_mask
from kshot.io.manifest import read_settings
from kshot.report.run import read_run
from kshot.types import Shot, Thresholds
from tests.support.commands import run
from tests.support.drawing import draw
from tests.support.squares import predict_squares

CASES = [
    Thresholds(min_score=0.65),
    Thresholds(min_area=95),
    Thresholds(min_area="0.7%"),
    Thresholds(min_presence=0.7),
    Thresholds(min_presence=0.1),
    Thresholds(min_presence=0.7, min_score=0.65, min_area=5),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("one", "two"):
        Image.fromarray(draw(3)[0]).save(folder / f"{name}.png")
    return folder


def squares_task(toy: kshot.Segmenter, shots: list[Shot], monkeypatch: pytest.MonkeyPatch) -> kshot.Task:
    picture, mask = draw(2)
    task = toy.fit([Shot(shots[0].image, mask=shots[0].mask, label="a"), Shot(picture, mask=mask, label="b")])
    predict_squares(monkeypatch)
    return task


def masks_of(annotations, classes) -> dict[str, np.ndarray]:
    return {image.stem: image.labels(classes) for image in annotations.images}


@pytest.mark.parametrize("instances", [None, "components", "watershed"])
@pytest.mark.parametrize("thresholds", CASES)
def test_saved_scores_give_what_a_run_with_the_thresholds_gives(
    toy: kshot.Segmenter,
    shots: list[Shot],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    thresholds: Thresholds,
    instances: str | None,
) -> None:
    task = squares_task(toy, shots, monkeypatch)
    how = {"formats": ("png", "scores"), "export": Export(instances)}
    label_folder(toy, task, images, tmp_path / "run", **how)
    label_folder(toy, task, images, tmp_path / "asked", thresholds=thresholds, **how)
    monkeypatch.setattr(kshot.Segmenter, "decide", lambda *_: pytest.fail("it predicted again"))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    found, _ = read_labels(tmp_path / "run", thresholds=thresholds)
    asked = read_manifest(tmp_path / "asked")
    for stem, mask in masks_of(found, task.classes).items():
        assert np.array_equal(mask, read_mask(tmp_path / f"asked/masks/{stem}.png", drawn=False))
    counts = {image.name: len(image.annotations) for image in found.images}
    assert counts == {r["input"]: sum(c["objects"] for c in r["classes"].values()) for r in asked}
    saved = kshot_run.SavedLabels(
        tmp_path / "run", read_settings(tmp_path / "run"), read_manifest(tmp_path / "run"), thresholds
    )
    for one, record in zip(read_manifest(tmp_path / "run"), asked, strict=True):
        now = saved.record_of(one)
        assert now.pop("uncertainty") == pytest.approx(record.pop("uncertainty"), abs=2e-4)
        assert now == record
        assert np.array_equal(saved.labels_of(one), read_mask(tmp_path / "asked" / one["mask"], drawn=False))
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_without_scores_masks_tell_the_area_and_objects_their_score(
    toy: kshot.Segmenter, shots: list[Shot], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = squares_task(toy, shots, monkeypatch)
    label_folder(toy, task, images, tmp_path / "run", formats=("png",))
    found, _ = read_labels(tmp_path / "run", thresholds=Thresholds(min_area=500))
    assert [[one.area for one in image.annotations] for image in found.images] == [[900]] * 2
    assert found.skipped.counts == {"objects below the thresholds": 2}
    for thresholds, option in (
        (Thresholds(min_score=0.5), "min_score"),
        (Thresholds(min_area=95), "min_area"),  # lower than the run's, two patch tokens: 170.7 pixels
        (Thresholds(min_presence=0.1), "min_presence"),  # lower than the run's: what it left out may come back
        (Thresholds(min_presence=0.7), "min_presence"),  # the pixels of b might be those of a
    ):
        with pytest.raises(SettingError, match=rf"run: {option} .*--format scores"):
            read_labels(tmp_path / "run", thresholds=thresholds)
    found, _ = read_labels(tmp_path / "run", thresholds=Thresholds(min_presence=0.5))  # as the run had it
    assert [len(image.annotations) for image in found.images] == [2, 2]
    how = {"formats": ("png",), "export": Export("components"), "thresholds": Thresholds(min_area=5)}
    label_folder(toy, task, images, tmp_path / "objects", **how)
    found, _ = read_labels(tmp_path / "objects", thresholds=Thresholds(min_score=0.65))
    assert [sorted(one.area for one in image.annotations) for image in found.images] == [[9, 81, 400, 900]] * 2


def test_labels_of_other_formats_are_judged_object_by_object(
    toy: kshot.Segmenter, shots: list[Shot], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = squares_task(toy, shots, monkeypatch)
    how = {"formats": ("png", "coco", "voc"), "export": Export("components"), "thresholds": Thresholds(min_area=5)}
    label_folder(toy, task, images, tmp_path / "run", **how)
    for source in (tmp_path / "run/coco.json", tmp_path / "run/voc"):
        found, _ = read_labels(source, images, Thresholds(min_area=95))
        assert [sorted(one.area for one in image.annotations) for image in found.images] == [[100, 400, 900]] * 2
    found, _ = read_labels(tmp_path / "run/coco.json", images, Thresholds(min_score=0.65))
    assert [len(image.annotations) for image in found.images] == [4, 4]
    with pytest.raises(SettingError, match="hold no presence"):
        read_labels(tmp_path / "run/coco.json", images, Thresholds(min_presence=0.5))


@pytest.mark.parametrize("instances", [None, "components", "watershed"])
def test_summary_manifest_and_files_count_one_number_of_objects(
    toy: kshot.Segmenter,
    shots: list[Shot],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instances: str | None,
) -> None:
    pytest.importorskip("rasterio")
    task, out = squares_task(toy, shots, monkeypatch), tmp_path / "out"
    formats = ("png", "coco", "yolo", "labelme", "label_studio", "cvat", "voc", "geojson")
    summary = label_folder(toy, task, images, out, formats=formats, export=Export(instances))
    records = read_manifest(out)
    # Two squares of each image are larger than a speck: two patch tokens of 8 x 8 pixels at 96 x 96 cover 170.7 here.
    assert summary.objects == sum(c["objects"] for r in records for c in r["classes"].values())
    assert len(json.loads((out / "coco.json").read_text())["annotations"]) == summary.objects
    assert sum(len(path.read_text().splitlines()) for path in (out / "yolo/labels").iterdir()) == summary.objects
    for name in ("labelme", "label_studio", "cvat"):
        place = {"labelme": "labelme", "label_studio": "label_studio.json", "cvat": "cvat.xml"}[name]
        read, _ = read_labels(out / place, images)
        assert sum(len(image.annotations) for image in read.images) == summary.objects
    assert sum(len(np.unique(read_mask(p, drawn=False))) - 1 for p in (out / "voc/SegmentationObject").iterdir()) == (
        summary.objects
    )
    features = [json.loads(path.read_text())["features"] for path in (out / "geojson").iterdir()]
    assert sum(map(len, features)) == summary.objects
    assert summary.objects == 2 * 2
    whole = label_folder(toy, task, images, tmp_path / "all", thresholds=Thresholds(min_area=0))
    assert whole.objects == 2 * 7


def test_a_mask_that_a_person_changed_stays_as_it_is(
    toy: kshot.Segmenter, shots: list[Shot], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = squares_task(toy, shots, monkeypatch)
    label_folder(toy, task, images, tmp_path / "run", formats=("png", "scores"))
    corrected = np.zeros((96, 128), np.uint8)
    corrected[:2, :3] = 2
    Image.fromarray(corrected).save(tmp_path / "run/masks/one.png")
    found, _ = read_labels(tmp_path / "run", thresholds=Thresholds(min_area=500))
    assert [[one.area for one in image.annotations] for image in found.images] == [[6], [900]]
    assert "one.png: changed by a person" in " ".join(found.skipped.lines)


def test_convert_and_report_take_the_thresholds(
    toy: kshot.Segmenter, shots: list[Shot], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out = squares_task(toy, shots, monkeypatch), tmp_path / "run"
    label_folder(toy, task, images, out, formats=("png", "overlay", "scores"))
    manifest = (out / "manifest.jsonl").read_bytes()
    facts = json.loads(
        run(
            "convert", out, "--to", "yolo", "--min-area", 95, "--min-score", 0.65, "-o", tmp_path / "y", "--json"
        ).stdout
    )
    lines = [path.read_text().splitlines() for path in sorted((tmp_path / "y/yolo/labels").iterdir())]
    assert facts["images"] == 2 and [[line[0] for line in each] for each in lines] == [["0", "1"]] * 2
    run("convert", out, "--to", "png", "--min-presence", 0.7, "-o", tmp_path / "png")
    assert np.unique(read_mask(tmp_path / "png/masks/one.png", drawn=False)).tolist() == [0, 1]
    run("report", out, "--min-area", 0)
    page = (out / "report.html").read_text()
    assert "min_area 0" in page and read_run(out, Thresholds(min_area=0)).objects == 2 * 7
    run("report", out)
    assert "other thresholds" not in (out / "report.html").read_text() and read_run(out).objects == 2 * 2
    assert (out / "manifest.jsonl").read_bytes() == manifest
    assert "min-score" in str(run("convert", out, "--to", "coco", "--min-score", 2, "-o", "x", code=2).output)
