"""Files as people have them: `kshot convert` gives the right pixels, finds the image, and says what it leaves out."""

import json
from pathlib import Path

import pytest

from kshot.errors import KshotError
from kshot.formats.base import load_format, read_labels
from kshot.io.images import read_mask
from tests.support.commands import run


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases").is_dir():
        pytest.skip("needs the cases")
    return shared / "cases"


@pytest.mark.parametrize(
    ("case", "areas"),
    [
        ("instances-8bit-200", {"cell": 19200}),
        ("rgba-mask", {"cup": 2000, "lid": 2000}),
        ("second-mask-of-an-image", {"lesion": 1800}),
        ("cvat-mask-1.1-colours", {"leaf": 4000, "stone": 800}),
    ],
)
def test_masks_hold_their_pixels(case: str, areas: dict[str, int], cases: Path, tmp_path: Path) -> None:
    run("convert", cases / case / "input", "--to", "png", "-o", tmp_path / "out")
    names = json.loads((tmp_path / "out/classes.json").read_text())
    masks = [read_mask(path, drawn=False) for path in (tmp_path / "out/masks").rglob("*.png")]
    assert {name: sum(int((mask == int(label)).sum()) for mask in masks) for label, name in names.items()} == areas


@pytest.mark.parametrize("case", ["coco-name-normal-form", "labelme-windows-path"])
def test_the_image_comes_along(case: str, cases: Path, tmp_path: Path) -> None:
    run("convert", cases / case / "input", "--to", "yolo", "--copy-images", "-o", tmp_path / "out")
    assert len(list((tmp_path / "out/yolo/images").iterdir())) == 1


def test_yolo_lines_of_other_kinds(cases: Path, tmp_path: Path) -> None:
    said = run("convert", cases / "yolo-with-confidence/input", "--to", "coco", "-o", tmp_path / "a", "--json").stdout
    assert json.loads(said)["left_out"] == {"confidence of a box": 1}
    read = json.loads((tmp_path / "a/coco.json").read_text())["annotations"]
    assert [one.get("score") for one in read] == [0.87, None]
    run("convert", cases / "yolo-pose/input", "--to", "cvat", "-o", tmp_path / "b")
    written = (tmp_path / "b/cvat.xml").read_text()
    assert "<box" in written and "<polygon" not in written and "<mask" not in written
    said = run("convert", cases / "yolo-label-without-image/input", "--to", "coco", "-o", tmp_path / "c").output
    assert "no image for labels/b.txt, labels/c.txt" in said


def test_every_case_is_read_or_refused_in_words(cases: Path, tmp_path: Path) -> None:
    read = 0
    for case in sorted(path.parent for path in cases.glob("*/input")):
        for to in ("coco", "index_masks"):
            try:
                labels, _ = read_labels(case / "input")
                load_format(to).write_annotations(labels, tmp_path / case.name / to)
                read += 1
            except KshotError as error:
                assert str(error).strip()
    assert read >= 2 * 20
