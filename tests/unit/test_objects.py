"""Objects of a prediction: where they are, in which order, and as what other programs take them."""

import json
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from skimage.measure import regionprops

from kshot.annotations import rle
from kshot.errors import SettingError
from kshot.objects import Instance
from kshot.ops.measures import shape_of, solidity
from kshot.types import Prediction


def prediction_of(labels: np.ndarray, classes: tuple[str, ...] = ("a", "b")) -> Prediction:
    scores = np.full((len(classes) + 1, *labels.shape), 0.1, np.float32)
    np.put_along_axis(scores, labels[None].astype(np.int64), 0.8, 0)
    scores /= scores.sum(0)
    return Prediction.from_scores(scores, classes, image=np.full((*labels.shape, 3), 90, np.uint8))


def two_discs(gap: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[:60, :110]
    left, right = ((rows - 30) ** 2 + (columns - x) ** 2 < 20**2 for x in (30, 66 + gap))
    return (left | right).astype(np.uint8)


def test_objects_come_class_by_class_from_top_to_bottom_and_make_up_the_mask() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[20:30, 5:15], labels[2:10, 40:50], labels[3:9, 5:15] = 1, 2, 1
    found = prediction_of(labels).instances()
    assert [(one.label, one.box_xyxy) for one in found] == [
        ("a", (5, 3, 15, 9)),
        ("a", (5, 20, 15, 30)),
        ("b", (40, 2, 50, 10)),
    ]
    assert [one.centroid_xy for one in found] == [(10.0, 6.0), (10.0, 25.0), (45.0, 6.0)]
    assert np.array_equal(sum(one.mask * (1 if one.label == "a" else 2) for one in found), labels)


def test_discs_that_touch_are_one_component_and_two_objects() -> None:
    pred = prediction_of(two_discs(), ("a",))
    assert [len(pred.instances(method)) for method in ("components", "watershed")] == [1, 2]
    with pytest.raises(SettingError, match="components, watershed"):
        pred.instances("magic")


def test_a_class_that_fills_the_image_is_one_object() -> None:
    (one,) = prediction_of(np.ones((30, 50), np.uint8), ("a",)).instances()
    assert one.area == 1500 and one.box_xyxy == (0, 0, 50, 30)
    assert one.polygons()[0].outer.tolist() == [[0, 0], [50, 0], [50, 30], [0, 30]]


def test_nothing_found_gives_empty_things_of_the_right_shapes() -> None:
    pred = prediction_of(np.zeros((8, 9), np.uint8))
    assert pred.instances() == () and pred.boxes().shape == (0, 4) and pred.polygons() == []
    assert pred.to_coco()["annotations"] == [] and pred.to_geojson()["features"] == []
    assert len(pred.to_pandas()) == 0


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_supervision_measures_the_same_boxes_and_areas() -> None:
    supervision = pytest.importorskip("supervision")
    pred = prediction_of(two_discs(6), ("a",))
    found, ours = pred.to_supervision(), pred.instances()
    assert found.area.tolist() == [one.area for one in ours]
    inclusive = supervision.mask_to_xyxy(found.mask)
    assert np.array_equal(inclusive[:, :2], found.xyxy[:, :2]) and np.array_equal(
        inclusive[:, 2:] + 1, found.xyxy[:, 2:]
    )
    assert len(prediction_of(np.zeros((8, 9), np.uint8)).to_supervision()) == 0


def test_holes_are_rings_of_their_own_and_the_area_is_kept() -> None:
    labels = np.zeros((30, 30), np.uint8)
    labels[4:20, 5:25] = 1
    labels[8:12, 9:15] = 0
    (polygon,) = prediction_of(labels, ("a",)).polygons(method="components")
    assert polygon.outer.tolist() == [[5, 4], [25, 4], [25, 20], [5, 20]] and len(polygon.holes) == 1
    (feature,) = prediction_of(labels, ("a",)).to_geojson(method="components")["features"]
    areas = [ring_area(ring) for ring in feature["geometry"]["coordinates"]]
    assert areas == [320, -24] and feature["properties"]["area_px"] == 296


def ring_area(ring: list[list[float]]) -> float:
    xs, ys = np.array(ring[:-1]).T
    return float(xs @ np.roll(ys, -1) - ys @ np.roll(xs, -1)) / 2


def test_a_map_turns_rings_so_that_the_outer_one_stays_positive() -> None:
    pred = prediction_of(two_discs(), ("a",))
    features = pred.to_geojson((2.0, 0, 100, 0, -2.0, 500), method="components")["features"]
    (ring,) = features[0]["geometry"]["coordinates"]
    assert ring_area(ring) == pytest.approx(4 * pred.areas()["a"])
    with pytest.raises(SettingError, match="transform"):
        pred.to_geojson(crs="EPSG:32632")


def test_pixels_that_meet_at_a_corner_are_one_object_of_two_polygons() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1:3, 1:3] = labels[3:5, 3:5] = 1
    pred = prediction_of(labels, ("a",))
    (one,) = pred.instances("components")
    assert [len(polygon.outer) for polygon in one.polygons()] == [4, 4]
    (feature,) = pred.to_geojson(method="components")["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"


def test_coco_holds_each_object_as_pycocotools_reads_it() -> None:
    pred = prediction_of(two_discs(), ("a",))
    document = json.loads(json.dumps(pred.to_coco("x.png")))
    for entry, one in zip(document["annotations"], pred.instances(), strict=True):
        assert np.array_equal(coco_mask.decode(entry["segmentation"]).astype(bool), one.mask)
        assert entry["score"] == pytest.approx(one.score, abs=1e-6) and entry["area"] == one.area
    assert np.array_equal(sum(rle.decode(e["segmentation"]) for e in pred.to_coco()["annotations"]), pred.mask)


@pytest.mark.parametrize("seed", range(20))
def test_shapes_are_those_of_scikit_image(seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 12)) < 0.2 + seed / 30
    (region,) = regionprops(np.pad(mask, 1).astype(np.uint8))
    shape = shape_of(mask)
    for name, theirs in {
        "perimeter_px": "perimeter",
        "equivalent_diameter_px": "equivalent_diameter_area",
        "major_axis_px": "axis_major_length",
        "minor_axis_px": "axis_minor_length",
    }.items():
        assert shape[name] == pytest.approx(region[theirs], abs=1e-6), name


def test_solidity_counts_whole_pixels() -> None:
    assert solidity(np.ones((1, 1), bool)) == solidity(np.ones((3, 7), bool)) == 1
    corner = np.ones((2, 2), bool)
    corner[0, 0] = False  # the hull of its three squares is theirs and half a pixel
    assert solidity(corner) == 3 / 3.5


def test_values_of_each_band_are_measured_inside_the_object() -> None:
    one = Instance("a", np.array([[True, False], [True, True]]), (slice(1, 3), slice(2, 4)), (4, 5), 0.5)
    bands = np.zeros((4, 5, 2))
    bands[1, 2], bands[2, 2], bands[2, 3], bands[1, 3] = (1, 10), (2, np.nan), (6, 30), (99, 99)
    facts = one.measure(bands)
    assert (facts["mean_1"], facts["mean_2"], facts["std_2"]) == (3, 20, 10)
    assert facts["std_1"] == pytest.approx(np.std([1, 2, 6]))


def test_ten_thousand_objects_are_found_and_measured() -> None:
    labels = np.zeros((1000, 1000), np.uint8)
    for dy, dx in ((y, x) for y in range(7) for x in range(7)):
        labels[1 + dy :: 10, 1 + dx :: 10] = 1
    found = prediction_of(labels, ("a",)).instances()
    assert len(found) == 10_000 and {one.area for one in found} == {49}
    assert sum(one.crop.nbytes for one in found) == 490_000  # a mask of the image each would be 10 GB


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SettingError, match=r"pip install 'kshot\[table\]'"):
        prediction_of(two_discs()).to_pandas()


def test_a_notebook_shows_the_overlay() -> None:
    pred = prediction_of(two_discs())
    data = pred._repr_png_()
    assert data is not None and data.startswith(b"\x89PNG")
    assert Prediction(pred.mask, pred.scores, pred.present, pred.classes)._repr_png_() is None
