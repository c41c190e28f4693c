"""`kshot convert`, and the formats of `kshot label`, as a person types them."""

import json
from pathlib import Path

import numpy as np
import pytest

import kshot
from kshot.io.images import read_mask
from tests.support.commands import TOY, run

FOLDERS = {"coco": "", "voc": "voc", "yolo": "yolo", "labelme": "labelme", "label-studio": "", "cvat": "", "png": ""}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_in_every_format_converts_to_the_same_masks(support_folder: Path, image_folder: Path) -> None:
    pytest.importorskip("rasterio")
    formats = "png,overlay,scores,coco,voc,yolo,labelme,label_studio,cvat,geotiff,geojson"
    run("label", support_folder, image_folder, "-o", "out", "--format", formats, "--instances", "components", *TOY)
    for name in ("a", "b", "none", "sub/a"):
        for path in (
            f"labelme/{name}.json",
            f"yolo/labels/{name}.txt",
            f"geotiff/{name}.tif",
            f"instances/{name}.json",
        ):
            assert Path("out", path).is_file()
    for name, folder in FOLDERS.items():
        result = run("convert", "out", "--to", name, "-o", f"as {name}")
        assert "read kshot run in out" in result.stderr and "4 images, 1 classes" in result.stdout
        source = Path(f"as {name}", folder)
        run("convert", source, "--to", "png", "-o", f"back {name}", "--images", image_folder)
        for stem in ("a", "b", "none", "sub/a"):
            again = read_mask(Path(f"back {name}/masks/{stem}.png"), drawn=False)
            np.testing.assert_array_equal(again, read_mask(Path(f"out/masks/{stem}.png"), drawn=False))
    assert kshot.SupportSet.from_folder("as yolo/yolo").source == "YOLO in as yolo/yolo/"
    assert kshot.SupportSet.from_folder("out").classes == ("disc",)


def test_class_folders_convert_and_json_says_what_was_done(support_folder: Path) -> None:
    facts = json.loads(run("convert", support_folder, "--to", "coco", "-o", "out", "--json").stdout)
    assert facts["classes"] == ["disc"] and facts["images"] == 2 and facts["written"] == "out/coco.json"
    assert json.loads(run("convert", "out/coco.json", "--to", "yolo", "-o", "y", "--json").stdout)["images"] == 2
    polygons = json.loads(Path("out/coco.json").read_text())
    assert [image["file_name"] for image in polygons["images"]] == ["disc/1.jpg", "disc/2.jpg"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--to", "coco", "-o", "out"], "nowhere: no such file or folder; check the path"),
        (["support", "--to", "bmp", "-o", "out"], "no format is called 'bmp'. Choices: coco, cvat, geojson"),
        (["support", "--to", "overlay", "-o", "out"], "cannot be written so"),
        (["support", "--to", "coco", "-o", "support"], "never written to"),
        (["support", "--to", "coco", "-o", "full"], "not empty"),
        (["support", "--to", "coco", "-o", "out", "--instances", "parts"], "components, watershed"),
        (["full", "--to", "coco", "-o", "out"], "looked for"),
    ],
)
def test_what_cannot_be_converted_says_why(arguments: list[str], says: str, support_folder: Path) -> None:
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    assert says in str(run("convert", *arguments, code=1).exception)
    assert Path("full/notes.txt").read_text() == "mine"
