"""A run replaces its own files alone, and nothing that it reads."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.batch import label_folder, read_manifest
from kshot.errors import OutputError, SettingError
from kshot.io.atomic import place_image
from kshot.types import Shot
from tests.support.commands import TOY, run
from tests.support.drawing import draw
from tests.support.files import picture, text
from tests.support.runs import contents

FORMATS = ("png", "overlay", "coco", "yolo", "voc", "labelme")


@pytest.fixture
def task(toy: kshot.Segmenter, shots: list[Shot]) -> kshot.Task:
    return toy.fit(shots)


@pytest.fixture
def masks_folder(tmp_path: Path) -> Path:
    """Supports as images/ and masks/, whose masks a run would name the same."""
    folder = tmp_path / "support"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for seed, name in ((1, "a"), (2, "b")):
        image, mask = draw(seed)
        Image.fromarray(image).save(folder / "images" / f"{name}.jpg", quality=95)
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{name}.png")
    text(folder / "classes.json", {"1": "disc"})
    return folder


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--resume"]])
def test_supports_are_never_replaced(masks_folder: Path, image_folder: Path, flags: list[str]) -> None:
    before = contents(masks_folder)
    done = run("label", masks_folder, image_folder, "-o", masks_folder, *TOY, *flags, code=1)
    assert "is read itself" in str(done.exception) and contents(masks_folder) == before


def test_results_are_never_mixed_with_supports(support_folder: Path, image_folder: Path) -> None:
    """Class folders hold nothing of the names that a run writes; the run would still make another layout of them."""
    before = contents(support_folder)
    done = run("label", support_folder, image_folder, "-o", support_folder, *TOY, code=1)
    assert "is read itself" in str(done.exception) and contents(support_folder) == before


def test_supports_inside_and_around_the_output_folder_are_never_replaced(
    toy: kshot.Segmenter, task: kshot.Task, masks_folder: Path, image_folder: Path
) -> None:
    out, before = masks_folder.parent, contents(masks_folder)
    (out / "masks").mkdir()
    shutil.copy(masks_folder / "masks/a.png", out / "masks/mine.png")
    with pytest.raises(SettingError, match="is read"):
        label_folder(toy, task, image_folder, masks_folder, overwrite=True, keep=[masks_folder / "masks/a.png"])
    below = masks_folder / "images"
    (below / "masks").mkdir()
    text(below / "masks/a.png", "mine")
    with pytest.raises(SettingError, match="is read"):
        label_folder(toy, task, image_folder, below, overwrite=True, keep=[masks_folder])
    assert {name: data for name, data in contents(masks_folder).items() if name in before} == before


@pytest.mark.parametrize("name", ["masks/a.png", "masks/other/x.txt", "coco.json", "report.html", "settings.json"])
def test_files_that_no_run_made_are_replaced_on_demand_alone(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path, name: str
) -> None:
    mine = text(tmp_path / "out" / name, "mine")
    for resume in (False, True):
        with pytest.raises(SettingError, match="no run of kshot made"):
            label_folder(toy, task, image_folder, tmp_path / "out", formats=FORMATS, resume=resume)
    assert mine.read_text() == "mine"
    assert label_folder(toy, task, image_folder, tmp_path / "out", formats=FORMATS, overwrite=True).processed == 4


def test_other_files_in_the_output_folder_are_no_reason_to_stop(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    mine = [text(tmp_path / "out" / name, "mine") for name in ("notes.txt", "accepted/a.png", ".kshot-notes")]
    assert label_folder(toy, task, image_folder, tmp_path / "out").processed == 4
    assert all(path.read_text() == "mine" for path in mine)


def test_overwriting_leaves_nothing_of_images_that_are_gone(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    label_folder(toy, task, image_folder, out, formats=FORMATS)
    mine = [text(out / name, "mine") for name in ("accepted/sub/a.png", "yolo/split.txt", "masks/mine.txt")]
    shutil.rmtree(image_folder / "sub")
    (image_folder / "b.png").unlink()
    label_folder(toy, task, image_folder, out, formats=FORMATS, overwrite=True)
    label_folder(toy, task, image_folder, tmp_path / "fresh", formats=FORMATS)
    assert all(path.read_text() == "mine" for path in mine)
    ours = {name: data for name, data in contents(out).items() if out / name not in mine}
    assert ours == contents(tmp_path / "fresh")


def test_results_that_a_run_reads_are_not_removed(
    toy: kshot.Segmenter, task: kshot.Task, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    label_folder(toy, task, image_folder, out, formats=FORMATS)
    before = contents(out)
    for place in (out, out / "masks", out / "yolo", out / "masks/a.png"):
        with pytest.raises(SettingError, match="is read"):
            label_folder(toy, task, image_folder, out, overwrite=True, keep=[place])
    assert contents(out) == before and len(read_manifest(out)) == 4


def test_a_task_replaces_task_files_alone(support_folder: Path, tmp_path: Path) -> None:
    photo = support_folder / "disc/1.jpg"
    before = photo.read_bytes()
    assert "no task file" in str(run("fit", support_folder, "-o", photo, *TOY, code=1).exception)
    assert photo.read_bytes() == before
    for name in ("disc.kshot", "disc.task"):
        for _ in range(2):
            run("fit", support_folder, "-o", tmp_path / name, *TOY)
    text(tmp_path / "disc.kshot", "damaged")
    run("fit", support_folder, "-o", tmp_path / "disc.kshot", *TOY)


def test_what_convert_reads_is_not_written_to(masks_folder: Path) -> None:
    before, images = contents(masks_folder.parent), masks_folder / "images"
    for out in (masks_folder.parent, masks_folder, images):
        run("convert", masks_folder, "--images", images, "--to", "png", "-o", out, "--overwrite", code=1)
    assert contents(masks_folder.parent) == before


def test_an_image_of_the_same_size_is_another_image(tmp_path: Path) -> None:
    source, target = text(tmp_path / "a.jpg", "one"), text(tmp_path / "b.jpg", "two")
    with pytest.raises(OutputError, match="another file"):
        place_image(source, target, copy=True)
    place_image(source, text(tmp_path / "c.jpg", "one"), copy=True)
    assert target.read_text() == "two"


def test_eval_replaces_no_file_that_no_run_made(tmp_path: Path) -> None:
    from kshot.evaluation.sweep import evaluate_runs

    mine = text(tmp_path / "results.json", "mine")
    with pytest.raises(SettingError, match="no run made"):
        evaluate_runs(None, [], tmp_path, None)  # type: ignore[arg-type]
    assert mine.read_text() == "mine" and picture(tmp_path / "a.png").is_file()
