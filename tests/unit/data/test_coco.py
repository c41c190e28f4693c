import json

import numpy as np
import pytest

from kshot.data import coco
from kshot.data.base import load_dataset
from kshot.errors import DatasetError
from tests.support.dataset_layouts import (
    CATEGORIES,
    HALF,
    SIDE,
    compressed,
    labels,
    make_coco,
    polygon,
    runs,
    save_picture,
    whole_coco,
)


@pytest.fixture(scope="module", params=[2014, 2017])
def whole(request, tmp_path_factory):
    return request.param, whole_coco(tmp_path_factory.mktemp("coco"), request.param)


def test_both_layouts_are_read(whole):
    year, root = whole
    dataset = load_dataset("coco", root)
    assert dataset.name == f"coco{year}"
    assert len(dataset.classes) == 80 and dataset.classes[11] == "class 13"  # 12 is one of the gaps
    assert dataset.splits.keys() == {"val"} and len(dataset.ids()) == 240
    assert all(dataset.image_path(image).is_file() for image in dataset.ids())
    both = load_dataset("coco", root, splits=("val", "train"))
    assert len(both.ids("train")) == 80 and both.support_split == "train"


def test_folds_are_every_fourth_class(whole):
    dataset = load_dataset("coco", whole[1], fold=2)
    assert dataset.fold_classes() == tuple(v + 1 for v in range(80) if v % 4 == 2)
    assert sorted(c for fold in range(4) for c in dataset.fold_classes(fold)) == list(range(1, 81))
    assert len(dataset.pairs()) == 20 * 3
    assert len(dataset.pairs(min_area=1)) == 20 * 6


def test_a_whole_set_is_told_from_a_part(whole, monkeypatch):
    year, root = whole
    dataset = load_dataset("coco", root)
    count = coco.VAL_IMAGES[year]
    assert dataset.report().shortfalls == (f"240 of {count} val{year} images present; not a COCO-20i score",)
    monkeypatch.setattr(coco, "VAL_IMAGES", {year: 240})
    told = dataset.report().shortfalls
    assert told == (() if year == 2014 else ("COCO-20i is defined on val2014, this is val2017; not a COCO-20i score",))


def paint(tmp_path, marks):
    root = make_coco(tmp_path, "val", 2017, {7: marks})
    return load_dataset("coco", root).truth("000000000007")


BOX = (8, 4, 40, 30)


@pytest.mark.parametrize("segmentation", [polygon(BOX), runs(BOX), compressed(BOX), runs((0, 0, 9, 9))])
def test_polygons_and_both_kinds_of_rle(tmp_path, segmentation):
    box = (0, 0, 9, 9) if segmentation == runs((0, 0, 9, 9)) else BOX
    assert np.array_equal(paint(tmp_path, [(13, segmentation, 0)]), labels({12: box}))


def test_a_crowd_is_255_and_lies_under_the_objects(tmp_path):
    found = paint(tmp_path, [(1, polygon((0, 0, 10, 10)), 0), (1, runs((5, 5, 30, 30)), 1)])
    assert np.array_equal(found, labels({255: (5, 5, 30, 30), 1: (0, 0, 10, 10)}))


def test_small_objects_lie_on_large_ones_in_any_order(tmp_path):
    marks = [(1, polygon((0, 0, 40, 40)), 0), (2, polygon((10, 10, 20, 20)), 0)]
    wanted = labels({1: (0, 0, 40, 40), 2: (10, 10, 20, 20)})
    assert np.array_equal(paint(tmp_path / "a", marks), wanted)
    assert np.array_equal(paint(tmp_path / "b", marks[::-1]), wanted)


def test_several_polygons_are_one_object_and_two_corners_are_none(tmp_path):
    parts = [*polygon((0, 0, 5, 5)), *polygon((20, 20, 25, 25)), [1.0, 2.0, 3.0, 4.0]]
    found = paint(tmp_path, [(2, parts, 0), (3, [[1.0, 2.0, 3.0, 4.0]], 0), (4, [], 0)])
    assert np.array_equal(found, np.maximum(labels({2: (0, 0, 5, 5)}), labels({2: (20, 20, 25, 25)})))


def test_an_image_without_annotations_is_background(tmp_path):
    assert not paint(tmp_path, []).any()


def test_missing_and_unlisted_pictures_are_listed_or_stop(tmp_path):
    root = make_coco(tmp_path, "val", 2014, {1: [(1, polygon(HALF), 0)], 2: [], 3: []})
    (root / "val2014" / "COCO_val2014_000000000002.jpg").unlink()
    save_picture(root / "val2014" / "other.jpg")
    dataset = load_dataset("coco", root)
    assert dataset.ids() == ("COCO_val2014_000000000001", "COCO_val2014_000000000003")
    assert [(p.what, p.ids) for p in dataset.problems] == [
        ("images of instances_val2014.json without a file", ("COCO_val2014_000000000002.jpg",)),
        ("images in val2014 that instances_val2014.json does not list", ("other.jpg",)),
    ]
    assert dataset.report().shortfalls == ("1 of 80 classes present; not a COCO-20i score",)
    with pytest.raises(DatasetError, match="without a file"):
        load_dataset("coco", root, strict=True)


def test_a_set_without_pictures_is_all_problems(tmp_path):
    root = make_coco(tmp_path, "val", 2014, {1: []})
    (root / "val2014" / "COCO_val2014_000000000001.jpg").unlink()
    (root / "val2014").rmdir()
    assert load_dataset("coco", root).ids() == ()


def test_2014_comes_first_and_a_year_can_be_chosen(tmp_path):
    make_coco(tmp_path, "val", 2017, {1: []})
    make_coco(tmp_path, "train", 2014, {2: []})
    assert load_dataset("coco", tmp_path).name == "coco2014"
    assert load_dataset("coco", tmp_path).query_split == "train"
    assert load_dataset("coco", tmp_path, year=2017).name == "coco2017"
    (tmp_path / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(DatasetError, match="no COCO 2017 here"):
        load_dataset("coco", tmp_path, year=2017)


def edit(root, change):
    path = root / "annotations" / "instances_val2014.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.pop("categories"), "KeyError: 'categories'"),
        (lambda d: d.update(images={}), "expected as lists"),
        (lambda d: d["images"][0].pop("file_name"), "KeyError: 'file_name'"),
        (lambda d: d["annotations"][0].update(category_id=99), "category 99, which the file does not define"),
        (lambda d: d["annotations"][0].update(segmentation=[["x"]]), "TypeError"),
    ],
)
def test_damaged_files_are_named(tmp_path, change, told):
    root = make_coco(tmp_path, "val", 2014, {1: [(1, polygon(HALF), 0)]})
    edit(root, change)
    with pytest.raises(DatasetError, match=rf"instances_val2014\.json.*{told}"):
        load_dataset("coco", root)


def test_text_that_is_no_json_is_named(tmp_path):
    root = make_coco(tmp_path, "val", 2014, {1: []})
    (root / "annotations" / "instances_val2014.json").write_text("{")
    with pytest.raises(DatasetError, match="not a COCO instances file"):
        load_dataset("coco", root)


def test_an_rle_of_another_size_is_refused_when_read(tmp_path):
    root = make_coco(tmp_path, "val", 2014, {1: [(1, runs(HALF, (SIDE, SIDE + 1)), 1)]})
    with pytest.raises(DatasetError, match=r"COCO_val2014_000000000001\.jpg, annotation 0: expected an RLE of size"):
        load_dataset("coco", root).truth("COCO_val2014_000000000001")


def test_files_that_define_different_categories_do_not_mix(tmp_path):
    make_coco(tmp_path, "train", 2014, {1: []})
    make_coco(tmp_path, "val", 2014, {2: []})
    edit(tmp_path, lambda d: d["categories"].pop())
    with pytest.raises(DatasetError, match="different categories"):
        load_dataset("coco", tmp_path, splits=("train", "val"))


def test_more_categories_than_labels_are_refused(tmp_path):
    root = make_coco(tmp_path, "val", 2014, {1: []})
    edit(root, lambda d: d["categories"].extend({"id": 100 + n, "name": str(n)} for n in range(200)))
    with pytest.raises(DatasetError, match="280 categories"):
        load_dataset("coco", root)


def test_categories_are_numbered_by_id(tmp_path):
    root = make_coco(tmp_path, "val", 2014, {1: []})
    edit(root, lambda d: d["categories"].reverse())
    assert load_dataset("coco", root).classes == tuple(f"class {n}" for n in CATEGORIES)


def test_objects_are_numbered_as_they_lie_and_a_crowd_is_none(tmp_path):
    boxes = {1: (0, 0, 40, 40), 2: (10, 10, 20, 20), 3: (42, 0, 50, 9)}
    marks = [(1, polygon(boxes[1]), 0), (1, polygon(boxes[3]), 0), (1, polygon(boxes[2]), 0)]
    root = make_coco(tmp_path, "val", 2014, {1: [*marks, (1, runs((45, 5, 60, 60)), 1)]})
    dataset = load_dataset("coco", root)
    numbers = dataset.objects(dataset.ids()[0])
    assert np.array_equal(np.maximum(numbers - 1, 0), labels(boxes))  # the crowd was the first
    assert set(np.unique(dataset.truth(dataset.ids()[0]))) == {0, 1, 255}
