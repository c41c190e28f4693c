"""Labels of a run that a person changed or accepted become supports; what is as the run wrote it does not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.annotations.model import Export
from kshot.batch import label_folder
from kshot.batch.additions import read_added
from kshot.errors import SupportError
from kshot.io.images import read_mask
from kshot.types import Shot
from tests.support.commands import TOY, run

FORMATS = ("png", "labelme", "voc", "yolo", "coco")


@pytest.fixture
def out(toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path) -> Path:
    """A run over three images with a disc and one without, in several formats."""
    label_folder(toy, toy.fit(shots), image_folder, tmp_path / "out", formats=FORMATS)
    return tmp_path / "out"


def correct(mask: Path) -> None:
    """Paint a corner of the disc's class into a mask, as a person does."""
    labels = read_mask(mask, drawn=False).copy()
    labels[:20, :20] = 1 - labels[:20, :20].min()
    Image.fromarray(labels).save(mask)


@pytest.mark.parametrize("place", ["masks", "copy", "labelme", "voc", "yolo"])
def test_what_is_as_the_run_wrote_it_is_no_support(out: Path, place: str) -> None:
    if place == "copy":
        shutil.copytree(out / "masks", out / "copy")
    with pytest.raises(SupportError, match=r"as the run wrote them, so nobody has judged them; correct .*accepted"):
        read_added(out / place)


def test_a_corrected_mask_is_one_wherever_it_lies(out: Path) -> None:
    shutil.copytree(out / "masks", out / "copy")
    for folder in ("masks", "copy"):
        correct(out / folder / "b.png")
        found = read_added(out / folder)
        assert [Path(shot.mask).relative_to(out / folder).as_posix() for shot in found] == ["b.png"]
        assert "1 changed by a person, 0 accepted as the run wrote them, 3 not taken" in found.notes[0]
    resaved = read_mask(out / "masks/a.png", drawn=False)
    Image.fromarray(resaved).save(out / "masks/a.png")  # other bytes, the same labels
    assert len(read_added(out / "masks")) == 1


def test_accepted_masks_are_taken_as_they_are_and_a_run_gives_both(out: Path) -> None:
    (out / "accepted/sub").mkdir(parents=True)
    shutil.copy(out / "masks/sub/a.png", out / "accepted/sub/a.png")
    shutil.copy(out / "masks/b.png", out / "accepted/b.png")
    assert len(read_added(out / "accepted")) == 2
    correct(out / "masks/b.png")
    correct(out / "masks/none.png")
    found = read_added(out)
    masks = sorted(Path(shot.mask).relative_to(out).as_posix() for shot in found)
    assert masks == ["accepted/b.png", "accepted/sub/a.png", "masks/none.png"]  # what was accepted goes first
    assert "1 changed by a person, 2 accepted as the run wrote them, 3 not taken" in found.notes[0]


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("export", [Export(), Export(polygons=True, tolerance=1.0)])
def test_of_an_annotation_tool_the_corrected_files_alone(
    toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path, export: Export, copies: bool
) -> None:
    out = tmp_path / "out"
    how = Export(polygons=export.polygons, tolerance=export.tolerance, copy_images=copies)
    label_folder(toy, toy.fit(shots), image_folder, out, formats=("png", "labelme"), export=how)
    with pytest.raises(SupportError, match="as the run wrote them"):
        read_added(out / "labelme")
    path = out / "labelme/b.json"
    facts = json.loads(path.read_text())
    box = {"label": "disc", "shape_type": "polygon", "points": [[0, 0], [30, 0], [30, 30], [0, 30]], "flags": {}}
    path.write_text(json.dumps(facts | {"shapes": [*facts["shapes"], box | {"group_id": None}]}))
    (shot,) = read_added(out / "labelme")
    assert Path(shot.image).name == "b.png" and np.asarray(shot.mask)[:29, :29].all()


def test_other_folders_are_taken_whole(support_folder: Path) -> None:
    assert len(read_added(support_folder)) == 2


def test_fit_says_what_it_took_and_leaves_the_effect_out_when_asked(
    out: Path, support_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    correct(out / "masks/b.png")
    fitted = run("fit", support_folder, "--add", "out", "-o", "b.kshot", *TOY)
    assert "added from out: 1 support" in fitted.stderr and "1 changed by a person" in fitted.stderr
    assert "3 support images" in fitted.stdout and "doubtful other images" in fitted.stdout
    monkeypatch.setattr(kshot.Segmenter, "predict", lambda *_: pytest.fail("it predicted"))
    facts = json.loads(
        run("fit", support_folder, "--add", "out", "--no-effect", "-o", "c.kshot", "--json", *TOY).stdout
    )
    assert facts["added"] == [{"from": "out", "supports": 1}] and "effect" not in facts and facts["supports"] == 3
