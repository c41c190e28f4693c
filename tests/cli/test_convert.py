"""`kshot convert`, and the formats of `kshot label`, as a person types them."""

import json
from pathlib import Path

import numpy as np
import pytest

import kshot
from kshot.formats.base import read_labels
from kshot.io.images import read_mask
from tests.support.commands import TOY, run
from tests.support.files import picture, text

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
        assert "read kshot run in out" in result.stderr and "4 images, 1 class ->" in result.stdout
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
    arguments = ("convert", "out/coco.json", "--to", "yolo", "--json")
    assert json.loads(run(*arguments, "--images", support_folder, "-o", "y").stdout)["images"] == 2
    lost = json.loads(run(*arguments, "-o", "without images", code=3).stdout)
    assert lost["images"] == 2 and len(lost["failed"]) == 2 and "disc/1.jpg: no such image" in lost["failed"][0]
    polygons = json.loads(Path("out/coco.json").read_text())
    assert [image["file_name"] for image in polygons["images"]] == ["disc/1.jpg", "disc/2.jpg"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--to", "coco", "-o", "out"], "nowhere: no such file or folder; check the path"),
        (["support", "--to", "bmp", "-o", "out"], "no format is called 'bmp'. Choices: areas, coco, cvat"),
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


def coco_file(folder: Path, *annotations: dict, **image: object) -> None:
    picture(folder / "a.jpg", (20, 40))
    entry = {"id": 1, "file_name": "a.jpg", "height": 20, "width": 40} | image
    names = [{"id": 1, "name": "cup"}, {"id": 2, "name": "lid"}]
    listed = [{"id": i, "image_id": 1, "category_id": 1, **one} for i, one in enumerate(annotations, start=1)]
    text(folder / "coco.json", {"images": [entry], "categories": names, "annotations": listed})


CUP = {"segmentation": [[4, 2, 10, 2, 10, 8, 4, 8]]}
LID = {"segmentation": [], "bbox": [20, 5, 10, 10], "category_id": 2}


@pytest.mark.parametrize("name", ["coco", "labelme", "cvat", "label-studio", "yolo"])
def test_a_box_beside_a_polygon_survives_in_every_format_of_tools(name: str, tmp_path: Path) -> None:
    coco_file(tmp_path / "in", CUP, LID)
    facts = json.loads(run("convert", "in", "--to", name, "-o", "out", "--json").stdout)
    assert facts["left_out"] == {} and facts["failed"] == []
    read, _ = read_labels(Path("out", FOLDERS[name]), tmp_path / "in" if not FOLDERS[name] else None)
    (image,) = read.images
    assert [(one.label, one.area) for one in image.annotations] == [("cup", 36)]
    np.testing.assert_allclose(image.prompts.boxes["lid"], [[20, 5, 30, 15]], atol=0.01)


@pytest.mark.parametrize("name", ["png", "voc"])
def test_what_a_format_cannot_hold_is_counted_and_named(name: str, tmp_path: Path) -> None:
    coco_file(tmp_path / "in", CUP, LID, LID)
    result = run("convert", "in", "--to", name, "-o", "out")
    assert "left out: boxes, which" in result.stderr and "(2)" in result.stderr


def test_one_odd_object_fails_alone_and_the_rest_is_converted(tmp_path: Path) -> None:
    coco_file(tmp_path / "in", CUP, {"segmentation": {"size": [20, 40], "counts": [7]}})
    result = run("convert", "in", "--to", "png", "-o", "out", "--json", code=3)
    facts = json.loads(result.stdout)
    assert "annotation 2: its RLE covers 7 pixels" in facts["failed"][0] and "failed: " in result.stderr
    assert (read_mask(Path("out/masks/a.png"), drawn=False) == 1).sum() == 36


def test_a_result_without_any_class_is_an_error_that_says_what_was_seen(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.jpg", (20, 40))
    shapes = '<skeleton label="hand"/><cuboid label="crate"/><tag label="blurry"/>'
    text(
        tmp_path / "in/a.xml",
        f'<annotations><image id="0" name="a.jpg" width="40" height="20">{shapes}</image></annotations>',
    )
    problem = str(run("convert", "in", "--to", "coco", "-o", "out", code=1).exception)
    assert "no label of any class" in problem and "left out: skeleton (1), cuboid (1), tag (1)" in problem


def test_label_tells_what_it_left_out_of_the_supports_and_ends_with_3(image_folder: Path, tmp_path: Path) -> None:
    coco_file(tmp_path / "in", CUP, {"segmentation": {"size": [20, 40], "counts": [7]}})
    result = run("label", "in", image_folder, "-o", "out", "--json", *TOY, code=3)
    assert (
        "supports: failed: " in result.stderr and "its RLE covers 7 pixels" in json.loads(result.stdout)["supports"][0]
    )
    assert Path("out/masks/a.png").is_file()


def test_scribbles_and_points_of_a_support_list_reach_the_tools_that_hold_them(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", (20, 40))
    listed = (
        "- {image: a.png, scribbles: [[[1, 1], [5, 9]]], label: cat}\n- {image: a.png, points: [[2, 3]], label: dog}\n"
    )
    text(tmp_path / "in/support.yaml", listed)
    for name in ("labelme", "cvat"):
        assert json.loads(run("convert", "in", "--to", name, "-o", name, "--json").stdout)["left_out"] == {}
        read, _ = read_labels(Path(name, FOLDERS[name]), tmp_path / "in" if not FOLDERS[name] else None)
        (image,) = read.images
        assert image.prompts.scribbles == {"cat": [[[1, 1], [5, 9]]]} and image.prompts.points == {"dog": [[2, 3]]}
    facts = json.loads(run("convert", "in", "--to", "label-studio", "-o", "ls", "--json").stdout)
    assert facts["left_out"] == {"lines, which label_studio does not hold": 1}
