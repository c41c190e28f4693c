"""The table of objects: as many rows as the run counts, with areas and values that were counted by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import kshot
from kshot.annotations.model import Export
from kshot.batch import label_folder, read_manifest
from kshot.errors import SettingError
from kshot.types import Shot
from tests.support.commands import TOY, run
from tests.support.films import film


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A 16-bit image with two cells, 10 x 6 and 4 x 4 pixels, of the values 1000 and 2000; and an empty image."""
    folder = tmp_path / "labels"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    image, mask = np.full((40, 50), 100, np.uint16), np.zeros((40, 50), np.uint8)
    image[5:11, 10:20], mask[5:11, 10:20] = 1000, 1
    image[30:34, 30:34], mask[30:34, 30:34] = 2000, 1
    tifffile.imwrite(folder / "images" / "a.tif", image)
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    tifffile.imwrite(folder / "images" / "b.tif", image)
    Image.fromarray(np.zeros_like(mask)).save(folder / "masks" / "b.png")
    (folder / "classes.json").write_text('{"1": "cell"}')
    return folder


def test_objects_are_measured_in_pixels_units_and_values(labels: Path) -> None:
    first, second = kshot.to_table(labels, pixel_size="0.5um").rows
    assert (first["image"], first["class"], first["object"], first["area_px"]) == ("a.tif", "cell", 1, 60)
    assert (first["area_um2"], second["area_um2"]) == (15, 4)
    assert first["mean_1"] == 1000 and second["mean_1"] == 2000 and first["std_1"] == 0
    assert first["perimeter_um"] == first["perimeter_px"] / 2 and first["solidity"] == 1
    assert (first["centroid_x"], first["centroid_y"]) == (15, 8) and second["x1"] == 34


def test_the_file_says_its_own_size_and_one_unit_holds_for_all(labels: Path) -> None:
    image = tifffile.imread(labels / "images" / "a.tif")
    Image.open(labels / "masks" / "a.png").save(labels / "masks" / "b.png")
    tifffile.imwrite(labels / "images" / "a.tif", image, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    tifffile.imwrite(labels / "images" / "b.tif", image, resolution=(10_000, 10_000), resolutionunit="CENTIMETER")
    rows = kshot.to_table(labels).rows
    assert [row["area_um2"] for row in rows] == pytest.approx([15, 4, 60, 16])


def test_images_without_a_size_are_counted_where_others_have_one(labels: Path) -> None:
    image = tifffile.imread(labels / "images" / "a.tif")
    Image.open(labels / "masks" / "a.png").save(labels / "masks" / "b.png")
    tifffile.imwrite(labels / "images" / "a.tif", image, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    table = kshot.to_table(labels)
    assert [row.get("area_um2") for row in table.rows] == [15, 4, None, None]
    assert any("says no pixel size (2)" in line for line in table.skipped.lines)


def test_a_table_is_written_as_csv_and_as_parquet(labels: Path, tmp_path: Path) -> None:
    table = kshot.to_table(labels, pixel_size="0.5um")
    with table.save(tmp_path / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["area_um2"]) for row in rows] == [15, 4] and rows[0]["score"] == ""
    pandas = pytest.importorskip("pandas")
    again = pandas.read_parquet(table.save(tmp_path / "objects.parquet"))
    assert list(again.columns) == list(table.columns) and again["area_px"].tolist() == [60, 16]
    with pytest.raises(SettingError, match=r"\.csv or \.parquet"):
        table.save(tmp_path / "objects.docx")


def test_labels_without_any_object_give_a_table_of_a_head(labels: Path, tmp_path: Path) -> None:
    Image.open(labels / "masks" / "b.png").save(labels / "masks" / "a.png")
    table = kshot.to_table(labels)
    assert len(table) == 0
    assert table.save(tmp_path / "empty.csv").read_text() == "image,class,object,score,area_px\n"


@pytest.mark.parametrize("method", ["components", "watershed"])
def test_table_summary_manifest_and_coco_count_the_same_objects(
    method: str, toy: kshot.Segmenter, shots: list[Shot], image_folder: Path, tmp_path: Path
) -> None:
    film(image_folder / "film.mp4", [np.asarray(Image.open(image_folder / "a.jpg"))] * 3)
    out, export = tmp_path / "out", Export(instances=method)
    summary = label_folder(
        toy, toy.fit(shots), image_folder, out, formats=("png", "coco"), export=export, table="o.csv"
    )
    rows = list(csv.DictReader((out / "o.csv").read_text().splitlines()))
    manifest = sum(about["objects"] for record in read_manifest(out) for about in record.get("classes", {}).values())
    coco = json.loads((out / "coco.json").read_text())["annotations"]
    assert len(rows) == summary.objects == manifest == len(coco) == len(kshot.to_table(out)) > 3
    assert sorted(int(row["area_px"]) for row in rows) == sorted(entry["area"] for entry in coco)
    of_film = [row for row in rows if row["image"].startswith("film.mp4#")]
    assert len({row["image"] for row in of_film}) == 3 and all(row["mean_3"] for row in of_film)
    assert summary.table == str(out / "o.csv") and summary.notes == ()


def test_a_table_is_part_of_the_run(support_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["label", support_folder, image_folder, "-o", out, *TOY, "--table", "objects.csv"]
    assert "table: " in run(*command, "--pixel-size", "2mm").stdout
    before = (out / "objects.csv").read_bytes()
    assert b"area_mm2" in before
    run(*command, "--pixel-size", "2mm", "--resume")
    assert (out / "objects.csv").read_bytes() == before
    assert "--pixel-size" in str(run(*command, "--resume", code=1).exception)
    run("label", support_folder, image_folder, "-o", out, *TOY, "--overwrite")
    assert not (out / "objects.csv").exists()  # a table of the run before would be of other masks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--table", "objects.csv", "--pixel-size", "0.65"], "without a unit"),
        (["--pixel-size", "0.65um"], "without a table"),
        (["--table", "a/objects.csv"], "without folders"),
        (["--table", "objects.xlsx"], "ends with .csv or .parquet"),
    ],
)
def test_what_no_table_can_be_is_refused_before_the_first_image(
    options: list[str], said: str, support_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    done = run("label", support_folder, image_folder, "-o", tmp_path / "out", *TOY, *options, code=1)
    assert said in str(done.exception) and not done.output and not (tmp_path / "out").exists()


def test_a_file_of_the_user_with_the_name_of_the_table_is_kept(
    support_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "objects.csv").write_text("mine")
    run("label", support_folder, image_folder, "-o", out, *TOY, "--table", "objects.csv", code=1)
    assert (out / "objects.csv").read_text() == "mine"
