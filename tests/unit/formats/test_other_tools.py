"""What kshot writes, as the tools' own code or an independent decoder of the published format reads it."""

import base64
import io
import json
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_rle
from pycocotools.coco import COCO
from scipy.ndimage import binary_dilation

from kshot.annotations.model import Export
from kshot.formats import coco, cvat, geojson, geotiff, label_studio, labelme, voc, yolo
from tests.support.annotation_sets import CLASSES, annotation_set

SIZE = (40, 56)


@pytest.fixture
def labels() -> np.ndarray:
    """A ring of class one with a dot of two in it, and two parts of three that touch in a corner."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    radius = np.hypot(rows - 15, columns - 18)
    mask = np.where((radius < 12) & (radius > 6), 1, 0)
    mask[radius < 3] = 2
    mask[30:34, 40:44], mask[34:38, 44:50] = 3, 3
    return mask.astype(np.uint8)


@pytest.fixture
def written(tmp_path, labels):
    return annotation_set(tmp_path / "images", {"a.png": labels, "b.png": np.zeros(SIZE, np.uint8)}), tmp_path / "out"


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_masks_and_polygons_to_the_pixel(polygons, written, labels, capsys):
    read = COCO(coco.FORMAT.write_annotations(*written, Export(polygons=polygons)))
    again = np.zeros(SIZE, np.uint8)
    for annotation in read.anns.values():
        again[read.annToMask(annotation) > 0] = annotation["category_id"]
    np.testing.assert_array_equal(again, labels)
    assert isinstance(read.anns[1]["segmentation"], list) is polygons and len(read.imgs) == 2


def test_a_labelme_mask_is_a_png_between_two_pixels(written, labels, tmp_path):
    folder = labelme.FORMAT.write_annotations(*written)
    data = json.loads((folder / "a.json").read_text())
    assert data.keys() >= {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
    # labelme lists the images of the folder that it opens, and looks for the labels of each beside it.
    assert data["imagePath"] == "a.png" and (folder / "a.png").resolve() == (tmp_path / "images/a.png").resolve()
    again = np.zeros(SIZE, np.uint8)
    for shape in data["shapes"]:
        assert shape["shape_type"] == "mask" and shape["group_id"] is None and shape["flags"] == {}
        (x0, y0), (x1, y1) = shape["points"]
        crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(bool)
        again[y0 : y1 + 1, x0 : x1 + 1][crop] = CLASSES.index(shape["label"]) + 1
    np.testing.assert_array_equal(again, labels)


def unpacked(packed: list[int]) -> list[int]:
    """Values of Label Studio's runs, by the description of rle-pack: the whole as one number, read from the top."""
    total, left = int.from_bytes(bytes(packed), "big"), len(packed) * 8

    def take(bits: int) -> int:
        nonlocal left
        left -= bits
        return (total >> left) & ((1 << bits) - 1)

    count, word, values = take(32), take(5) + 1, []
    sizes = [take(4) + 1 for _ in range(4)]
    while len(values) < count:
        repeated, length = take(1), take(sizes[take(2)]) + 1
        values += [take(word)] * length if repeated else [take(word) for _ in range(length)]
    assert left < 8 and len(values) == count
    return values


def test_a_brush_stroke_is_rgba_in_packed_runs(written, labels):
    tasks = json.loads(label_studio.FORMAT.write_annotations(*written).read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d={n}.png" for n in "ab"]
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "kshot" and prediction["score"] == 0.5
    again = np.zeros(SIZE, np.uint8)
    for region in prediction["result"]:
        assert (region["original_height"], region["original_width"]) == SIZE and region["type"] == "brushlabels"
        pixels = np.array(unpacked(region["value"]["rle"])).reshape(*SIZE, 4)
        assert set(np.unique(pixels)) == {0, 255} and (pixels == pixels[..., :1]).all()
        again[pixels[..., 3] > 0] = CLASSES.index(region["value"]["brushlabels"][0]) + 1
    np.testing.assert_array_equal(again, labels)
    config = ElementTree.fromstring(label_studio_config(written[1]))
    assert [label.get("value") for label in config.iter("Label")] == list(CLASSES)


def label_studio_config(out) -> str:
    return (out / "label_studio.xml").read_text()


def test_a_cvat_mask_is_run_lengths_of_a_box_row_by_row(written, labels):
    root = ElementTree.parse(cvat.FORMAT.write_annotations(*written)).getroot()
    assert root.findtext("version") == "1.1" and [i.get("name") for i in root.iter("image")] == ["a.png", "b.png"]
    again = np.zeros(SIZE, np.uint8)
    for element in root.iter("mask"):
        left, top, width, height = (int(element.get(key)) for key in ("left", "top", "width", "height"))
        runs = {"size": [width, height], "counts": [int(run) for run in element.get("rle").split(",")]}
        # COCO's run lengths go by columns: of the turned box they are the rows.
        box = coco_rle.decode(coco_rle.frPyObjects(runs, width, height)).T > 0
        again[top : top + height, left : left + width][box] = CLASSES.index(element.get("label")) + 1
    np.testing.assert_array_equal(again, labels)


def test_supervision_reads_a_yolo_folder_to_a_pixel_at_the_rim(written, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        supervision = pytest.importorskip("supervision")
    folder = yolo.FORMAT.write_annotations(*written).parent
    data = str(folder / "data.yaml")
    read = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), data, force_masks=True
    )
    assert read.classes == list(CLASSES) and yaml.safe_load((folder / "data.yaml").read_text())["val"] == "images"
    found = {path.rsplit("/", 1)[1]: detections for path, _, detections in read}
    assert len(found["b.png"]) == 0 and sorted(found["a.png"].class_id.tolist()) == [0, 1, 2]
    for mask, label in zip(found["a.png"].mask, found["a.png"].class_id, strict=True):
        ours = labels == label + 1
        # It fills up to and including the last corner, as OpenCV does, so a rim of one pixel comes on top.
        assert not (mask & ~binary_dilation(ours, np.ones((3, 3)), iterations=2)).any()
        assert (mask & ours).sum() >= 0.9 * ours.sum()


def test_pillow_reads_the_devkit_of_voc(written, labels):
    folder = voc.FORMAT.write_annotations(*written)
    for name, expected in {"a": labels, "b": np.zeros_like(labels)}.items():
        image = Image.open(folder / "SegmentationClass" / f"{name}.png")
        assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert (folder / "JPEGImages" / f"{name}.png").is_symlink()
    assert (folder / "ImageSets/Segmentation/val.txt").read_text() == "a\nb\n"
    assert not (folder / "SegmentationObject").exists()
    assert (folder / "labelmap.txt").read_text().splitlines()[2] == "one:128,0,0::"


def test_a_map_keeps_its_place_on_earth(tmp_path, labels):
    rasterio = pytest.importorskip("rasterio")
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)
    source = tmp_path / "images" / "a.tif"
    of_tree = annotation_set(tmp_path / "images", {"a.tif": labels})
    shape = {"height": SIZE[0], "width": SIZE[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(source, "w", driver="GTiff", crs="EPSG:32632", transform=place, **shape) as file:
        file.write(np.full((3, *SIZE), 90, np.uint8))
    folder = geotiff.FORMAT.write_annotations(of_tree, tmp_path / "out")
    with rasterio.open(folder / "a.tif") as read:
        assert (read.crs, read.transform) == (rasterio.CRS.from_epsg(32632), place)
        np.testing.assert_array_equal(read.read(1), labels)
        assert json.loads(read.tags()["classes"]) == {"1": "one", "2": "two", "3": "three"}
    data = json.loads((geojson.FORMAT.write_annotations(of_tree, tmp_path / "out") / "a.geojson").read_text())
    assert [feature["properties"]["class"] for feature in data["features"]] == ["one", "two", "three"]
    assert data["features"][2]["geometry"]["type"] == "MultiPolygon"  # its two parts meet at a corner
    assert len(data["features"][0]["geometry"]["coordinates"]) == 2  # the ring has a hole
    x, y = np.array(data["features"][1]["geometry"]["coordinates"][0]).mean(0)
    assert 9 < x < 9.01 and 48.7 < y < 48.8  # zone 32 north, on its central meridian


def test_a_picture_without_a_place_gives_a_plain_tiff_and_pixels(written, labels):
    pytest.importorskip("rasterio")
    with Image.open(geotiff.FORMAT.write_annotations(*written) / "a.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
    data = json.loads((geojson.FORMAT.write_annotations(*written) / "a.geojson").read_text())
    assert data["coordinates"] == "pixels x, y"
    *polygons, (first, second) = (feature["geometry"]["coordinates"] for feature in data["features"])
    assert np.max([point for rings in (*polygons, first, second) for point in rings[0]]) == 50
