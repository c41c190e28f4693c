"""Maps in, maps out: place, nodata and areas of GeoTIFF, GeoJSON, GeoPackage and the table, as others read them."""

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.annotations.model import Annotation, AnnotationSet, LabelledImage
from kshot.batch import label_folder, large_images
from kshot.errors import OutputError, SettingError
from kshot.features.tiles import Tiling
from kshot.formats import geojson, geopackage, geotiff
from kshot.io.images import read_mask
from tests.support.drawing import draw
from tests.support.files import prediction

rasterio = pytest.importorskip("rasterio")
from tests.support.scenes import HALF_METRE, MILLIDEGREE, write_scene  # noqa: E402

SIZE = (40, 56)


@pytest.fixture
def labels() -> np.ndarray:
    """A ring of class one (with a hole) and two parts of two that meet at a corner."""
    mask = np.zeros(SIZE, np.uint8)
    mask[4:20, 5:25], mask[8:12, 9:15] = 1, 0
    mask[30:34, 40:44], mask[34:38, 44:50] = 2, 2
    return mask


def annotations_of(folder: Path, labels: np.ndarray, **scenes: dict) -> AnnotationSet:
    """The same labels of scenes of these names, with these arguments of `write_scene`."""
    images = []
    for name, how in scenes.items():
        path = write_scene(folder / f"{name}.tif", how.pop("pixels", np.full(SIZE, 9, np.uint8)), **how)
        found = [Annotation.from_mask(labels == label, text, 0.75) for label, text in ((1, "one"), (2, "two"))]
        images.append(LabelledImage(path.name, SIZE, tuple(found), path))
    return AnnotationSet(("one", "two"), images)


def test_a_mask_of_a_map_says_where_there_is_no_data(labels: np.ndarray, tmp_path: Path) -> None:
    pixels = np.full(SIZE, 9, np.uint8)
    pixels[:, :7] = 0  # reaches into the ring
    given = annotations_of(tmp_path, labels, a={"pixels": pixels, "nodata": 0}, b={})
    folder = geotiff.FORMAT.write_annotations(given, tmp_path / "out")
    with rasterio.open(folder / "a.tif") as file:
        assert (file.crs.to_epsg(), file.transform, file.nodata) == (32632, HALF_METRE, 255)
        found = file.read(1)
        assert np.array_equal(found == 255, (pixels == 0) & (labels == 0))  # what a person labelled stays
        assert np.array_equal(found[pixels > 0], labels[pixels > 0])
    with rasterio.open(folder / "b.tif") as file:
        assert np.array_equal(file.read(1), labels) and (file.dataset_mask() == 255).all()


def test_a_run_predicts_nothing_where_there_is_no_data_whole_or_in_windows(
    toy: kshot.Segmenter, shots: list[kshot.Shot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, _ = draw(3, (300, 420))
    border = np.zeros(picture.shape[:2], np.bool_)
    border[:, :150] = True
    border[200:] = True
    scene = write_scene(tmp_path / "scene.tif", np.where(border[..., None], 0, picture | 1).astype(np.uint8), nodata=0)
    task, how = toy.fit(shots), {"tiling": Tiling(128, 32), "formats": ("png", "geotiff", "geojson"), "table": "o.csv"}
    label_folder(toy, task, scene, tmp_path / "whole", **how)
    monkeypatch.setattr(large_images, "FROM_PIXELS", 60_000)
    label_folder(toy, task, scene, tmp_path / "parts", **how)
    masks = []
    for run in ("whole", "parts"):
        mask = read_mask(tmp_path / run / "masks/scene.png", drawn=False)
        with rasterio.open(tmp_path / run / "geotiff/scene.tif") as file:
            assert (file.crs.to_epsg(), file.transform, file.nodata) == (32632, HALF_METRE, 255)
            assert np.array_equal(file.read(1) == 255, border) and np.array_equal(file.read(1)[~border], mask[~border])
        assert mask.any() and not mask[border].any()
        rows = list(csv.DictReader((tmp_path / run / "o.csv").read_text().splitlines()))
        features = json.loads((tmp_path / run / "geojson/scene.geojson").read_text())["features"]
        assert sum(float(row["area_m2"]) for row in rows) == pytest.approx(mask.astype(bool).sum() / 4)
        assert [one["properties"]["area_m2"] for one in features] == [float(row["area_m2"]) for row in rows]
        masks.append(mask)
    assert np.array_equal(*masks)


def test_pages_of_a_map_have_its_place(toy: kshot.Segmenter, shots: list[kshot.Shot], tmp_path: Path) -> None:
    pictures = [draw(seed, (120, 160))[0] | 1 for seed in (0, 1)]
    pictures[1][:, :30] = 0
    for append, picture in zip(("NO", "YES"), pictures, strict=True):
        write_scene(tmp_path / "series.tif", picture, nodata=0, APPEND_SUBDATASET=append)
    formats = ("geotiff", "geojson")
    label_folder(toy, toy.fit(shots), tmp_path / "series.tif", tmp_path / "out", formats=formats, table="o.csv")
    for page in (1, 2):
        with rasterio.open(tmp_path / f"out/geotiff/series/page000{page}.tif") as file:
            assert (file.crs.to_epsg(), file.transform) == (32632, HALF_METRE)
            assert (file.read(1) == 255).sum() == (0, 120 * 30)[page - 1]
        data = json.loads((tmp_path / f"out/geojson/series/page000{page}.geojson").read_text())
        assert all(one["properties"]["area_m2"] * 4 == one["properties"]["area_px"] for one in data["features"])


def test_polygons_know_their_source_and_their_areas_in_metres(labels: np.ndarray, tmp_path: Path) -> None:
    degrees = {"crs": "EPSG:4326", "transform": MILLIDEGREE}
    given = annotations_of(tmp_path, labels, a={}, b=degrees)
    folder = geojson.FORMAT.write_annotations(given, tmp_path / "out")
    of_a, of_b = (json.loads((folder / f"{name}.geojson").read_text())["features"] for name in "ab")
    assert of_a[0]["properties"] == {"source": "a.tif", "class": "one", "score": 0.75, "area_px": 296, "area_m2": 74}
    # A thousandth of a degree at 50 degrees north: 111.23 m by 71.70 m.
    assert of_b[0]["properties"]["area_m2"] == pytest.approx(296 * 111.23 * 71.70, rel=1e-3)


def test_a_prediction_says_the_same(labels: np.ndarray) -> None:
    found = prediction(labels, ("one", "two"))
    features = found.to_geojson(HALF_METRE, "EPSG:32632", source="a.tif", method="components")["features"]
    assert features[0]["properties"]["source"] == "a.tif" and features[0]["properties"]["area_m2"] == 74
    assert "area_m2" not in found.to_geojson(HALF_METRE)["features"][0]["properties"]
    with pytest.raises(SettingError, match="EPSG:999999"):
        found.to_geojson(HALF_METRE, "EPSG:999999")
    with pytest.raises(SettingError, match="six numbers"):
        found.to_geojson((1, 2, 3), "EPSG:32632")


def test_a_map_in_degrees_has_areas_in_the_table_and_lengths_in_pixels(labels: np.ndarray, tmp_path: Path) -> None:
    degrees = {"crs": "EPSG:4326", "transform": MILLIDEGREE}
    annotations_of(tmp_path / "images", labels, a=degrees)
    (tmp_path / "masks").mkdir()
    Image.fromarray(labels).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.json").write_text('{"1": "one", "2": "two"}')
    table = kshot.to_table(tmp_path)
    assert table.rows[0]["area_m2"] == pytest.approx(296 * 111.23 * 71.70, rel=1e-3)
    assert "perimeter_m" not in table.columns and not any("pixel size" in line for line in table.skipped.lines)


def test_a_geopackage_is_what_others_read(labels: np.ndarray, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    pytest.importorskip("pyogrio")
    degrees = {"crs": "EPSG:4326", "transform": MILLIDEGREE}
    given = annotations_of(tmp_path, labels, a={}, b={}, c=degrees)
    path = geopackage.FORMAT.write_annotations(given, tmp_path / "out")
    frame = geopandas.read_file(path, layer="epsg_32632")
    assert frame.crs.to_epsg() == 32632 and frame["source"].tolist() == ["a.tif"] * 2 + ["b.tif"] * 2
    assert frame["class"].tolist() == ["one", "two"] * 2 and frame["score"].tolist() == [0.75] * 4
    assert frame["area_px"].tolist() == [296, 40] * 2 and frame["area_m2"].tolist() == [74, 10] * 2
    assert frame.area.tolist() == pytest.approx([74, 10] * 2)  # of the geometry itself, its hole taken out
    assert frame.geometry.is_valid.all() and frame.total_bounds.tolist() == [500_002.5, 5_399_981, 500_025, 5_399_998]
    other = geopandas.read_file(path, layer="epsg_4326")
    assert other.crs.to_epsg() == 4326 and other["source"].tolist() == ["c.tif"] * 2
    assert other.to_crs(6933).area.tolist() == pytest.approx(other["area_m2"].tolist(), rel=1e-6)


def test_a_geopackage_is_a_database_as_the_standard_has_it(labels: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    given = annotations_of(tmp_path, labels, a={}, b={"crs": None})
    written = [geopackage.FORMAT.write_annotations(given, tmp_path / out) for out in ("one", "two")]
    assert written[0].read_bytes() == written[1].read_bytes()
    with closing(sqlite3.connect(written[0])) as database:
        assert database.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"GPKG"),)
        layers = dict(database.execute("SELECT table_name, srs_id FROM gpkg_contents"))
        assert layers["epsg_32632"] == 32632 and set(layers) == {"epsg_32632", "pixels"}
        assert database.execute("SELECT area_m2 FROM pixels").fetchall() == [(None,), (None,)]
        assert database.execute("SELECT DISTINCT geometry_type_name FROM gpkg_geometry_columns").fetchall() == [
            ("MULTIPOLYGON",)
        ]


def test_a_geopackage_without_objects_is_one_all_the_same(labels: np.ndarray, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    path = geopackage.FORMAT.write_annotations(annotations_of(tmp_path, labels * 0, a={}), tmp_path / "out")
    assert pyogrio.list_layers(path).tolist() == [["epsg_32632", "MultiPolygon"]]
    assert pyogrio.read_info(path)["features"] == 0
    nothing = geopackage.FORMAT.write_annotations(annotations_of(tmp_path, labels), tmp_path / "none")
    assert pyogrio.list_layers(nothing).tolist() == [["pixels", "MultiPolygon"]]
    again = geopackage.FORMAT.write_annotations(annotations_of(tmp_path, labels, a={}), tmp_path / "out")
    assert pyogrio.read_info(again)["features"] == 2


def test_without_pyogrio_the_way_to_get_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyogrio", None)
    with pytest.raises(OutputError, match="kshot\\[geo\\]"):
        geopackage.FORMAT.prepare()
