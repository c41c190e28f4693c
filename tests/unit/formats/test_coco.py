import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from kshot.errors import ImageReadError, MaskError, SupportError
from kshot.formats import coco, kshot_run, png
from tests.support.files import picture, prediction, square, text


def foreign(path):
    """The file as pycocotools itself reads it."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def record(name, labels, status="done", score=0.75):
    return {
        "input": name,
        "size_hw": list(labels.shape),
        "status": status,
        "mask": f"masks/{name.rsplit('.', 1)[0]}.png",
        "classes": {c: {"present": 0.9, "pixels": 1, "score": score} for c in ("cat", "dog")},
    }


def of_run(out, records, classes):
    """coco.json as a run writes it at its end."""
    return coco.FORMAT.write_annotations(kshot_run.annotations_of_run(out, records, classes), out)


def run_folder(out):
    """Three images in a run folder: both classes, the second class in two parts with 255, and nothing."""
    both = square(1, (7, 9))
    both[5:, 6:] = 2
    parts = np.zeros((5, 4), np.uint8)
    parts[0], parts[4], parts[2] = 2, 2, 255
    masks = {"b.jpg": both, "sub/a.jpg": parts, "c.jpg": np.zeros((3, 3), np.uint8)}
    for name, labels in masks.items():
        png.save_labels(labels, out / record(name, labels)["mask"])
    return masks, [record(name, labels, "done" if labels.any() else "empty") for name, labels in masks.items()]


def test_pycocotools_reads_back_every_mask_of_a_folder(tmp_path):
    masks, records = run_folder(tmp_path)
    failed = {"input": "z.jpg", "size_hw": [1, 1], "status": "failed", "classes": {}}
    path = of_run(tmp_path, [*records, failed], ("cat", "dog"))
    assert path == tmp_path / "coco.json"
    read = foreign(path)
    assert [c["name"] for c in read.loadCats([1, 2])] == ["cat", "dog"]
    assert [image["file_name"] for image in read.imgs.values()] == ["b.jpg", "c.jpg", "sub/a.jpg"]
    for image in read.imgs.values():
        expected = masks[image["file_name"]]
        assert (image["height"], image["width"]) == expected.shape
        again = np.zeros_like(expected)
        for annotation in read.imgToAnns[image["id"]]:
            again[read.annToMask(annotation) > 0] = annotation["category_id"]
        np.testing.assert_array_equal(again, np.where(expected == 255, 0, expected))


def test_an_annotation_has_the_area_box_and_score_counted_by_hand(tmp_path):
    _, records = run_folder(tmp_path)
    read = foreign(of_run(tmp_path, records, ("cat", "dog")))
    cat, *dogs = read.anns.values()
    assert (cat["area"], cat["bbox"], cat["iscrowd"], cat["score"]) == (9, [2.0, 1.0, 3.0, 3.0], 0, 0.75)
    assert [(dog["area"], dog["bbox"]) for dog in dogs] == [(6, [6.0, 5.0, 3.0, 2.0]), (8, [0.0, 0.0, 4.0, 5.0])]
    assert list(read.anns) == [1, 2, 3]


def test_any_order_of_the_records_gives_the_same_bytes(tmp_path):
    _, records = run_folder(tmp_path)
    first = of_run(tmp_path, records, ("cat", "dog")).read_bytes()
    assert of_run(tmp_path, iter(records[::-1]), ("cat", "dog")).read_bytes() == first


def test_the_last_record_of_an_input_holds(tmp_path):
    _, records = run_folder(tmp_path)
    once = of_run(tmp_path, records, ("cat", "dog")).read_bytes()
    earlier = [{**r, "status": "failed"} for r in records]
    assert of_run(tmp_path, earlier + records, ("cat", "dog")).read_bytes() == once
    assert foreign(of_run(tmp_path, records + earlier, ("cat", "dog"))).imgs == {}


def test_a_folder_without_any_object_is_still_a_file_that_opens(tmp_path):
    read = foreign(of_run(tmp_path, [], ("cat",)))
    assert (read.imgs, read.anns, list(read.cats)) == ({}, {}, [1])


def test_a_mask_that_does_not_fit_its_record_is_refused_by_its_name(tmp_path):
    labels = square(3)
    png.save_labels(labels, tmp_path / "masks/a.png")
    with pytest.raises(MaskError, match=r"a\.png: holds the label 3"):
        of_run(tmp_path, [record("a.jpg", labels)], ("cat", "dog"))
    with pytest.raises(MaskError, match=r"a\.png is 8 x 6 pixels"):
        of_run(tmp_path, [record("a.jpg", np.zeros((9, 9), np.uint8))], ("cat", "dog"))
    with pytest.raises(ImageReadError, match=r"b\.png: no such file"):
        of_run(tmp_path, [record("b.jpg", labels)], ("cat", "dog"))
    assert not (tmp_path / "coco.json").exists()


def test_one_prediction_is_a_file_of_its_own(tmp_path):
    found = prediction(square(2), ("cat", "löwe"))
    found.save(tmp_path / "photo.json")
    read = foreign(tmp_path / "photo.json")
    assert read.imgs[1]["file_name"] == "photo"
    np.testing.assert_array_equal(read.annToMask(read.anns[1]), square(1))
    assert read.anns[1]["category_id"] == 2 and read.cats[2]["name"] == "löwe"
    assert read.anns[1]["score"] == pytest.approx(0.8)
    assert json.loads((tmp_path / "photo.json").read_bytes())["licenses"] == []


def test_nothing_is_printed(tmp_path, capsys):
    _, records = run_folder(tmp_path)
    of_run(tmp_path, records, ("cat", "dog"))
    coco.FORMAT.read_shots(tmp_path / "masks")
    assert capsys.readouterr() == ("", "")


H, W = 6, 8
BOX = [2, 1, 5, 1, 5, 4, 2, 4]  # the polygon of rows 1..3, columns 2..4


def region(rows, columns):
    labels = np.zeros((H, W), np.uint8)
    labels[rows, columns] = 1
    return labels


SQUARE = region(slice(1, 4), slice(2, 5))


def compressed(labels):
    encoded = rle.encode(np.asfortranarray(labels))
    return {"size": list(labels.shape), "counts": encoded["counts"].decode()}


def plain(labels):
    runs, value = [0], 0
    for pixel in labels.ravel(order="F").tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return {"size": list(labels.shape), "counts": runs}


def annotated(*annotations):
    return {
        "images": [{"id": 5, "file_name": "a.jpg", "height": H, "width": W}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 10, "name": "unused"}],
        "annotations": [{"id": i, "image_id": 5, "category_id": 3, **a} for i, a in enumerate(annotations, start=1)],
    }


def folder(root, data, image="a.jpg", name="coco.json"):
    picture(root / image, (H, W))
    text(root / name, data)
    return root


@pytest.mark.parametrize("segmentation", [[BOX], BOX, plain(SQUARE), compressed(SQUARE)])
def test_polygons_and_both_kinds_of_rle_mark_the_same_pixels(segmentation, tmp_path):
    (shot,) = coco.FORMAT.read_shots(folder(tmp_path, annotated({"segmentation": segmentation, "bbox": [2, 1, 3, 3]})))
    np.testing.assert_array_equal(shot.mask, SQUARE)
    assert (shot.label, shot.image) == ({1: "cat"}, tmp_path / "a.jpg")


def test_compressed_rle_is_read_as_pycocotools_writes_it(tmp_path):
    for seed in range(20):
        noise = (np.random.default_rng(seed).random((H, W)) < seed / 19).astype(np.uint8)
        shots = coco.FORMAT.read_shots(folder(tmp_path, annotated({"segmentation": compressed(noise)})))
        np.testing.assert_array_equal(shots[0].mask if shots else np.zeros((H, W)), noise)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("a.jpg", "x.json"),
        ("images/a.jpg", "x.json"),
        ("images/a.jpg", "annotations/instances.json"),
        ("a.jpg", "annotations/instances.json"),
    ],
)
def test_the_file_may_stand_beside_the_images_or_in_annotations(image, name, tmp_path):
    shots = coco.FORMAT.read_shots(folder(tmp_path, annotated({"segmentation": [BOX]}), image, name))
    assert [shot.image for shot in shots] == [tmp_path / image]


def test_where_instances_overlap_the_smaller_is_on_top_and_crowds_are_ignored_below(tmp_path):
    whole, left = region(slice(None), slice(None)), region(slice(None), slice(0, 4))
    data = annotated(
        {"segmentation": compressed(SQUARE), "category_id": 9},
        {"segmentation": compressed(left)},
        {"segmentation": plain(whole), "iscrowd": 1},
    )
    (shot,) = coco.FORMAT.read_shots(folder(tmp_path, data))
    expected = np.where(SQUARE, 2, np.where(left, 1, 255))
    np.testing.assert_array_equal(shot.mask, expected)
    assert shot.label == {1: "cat", 2: "dog"}


def test_only_classes_that_stay_visible_are_declared(tmp_path):
    data = annotated({"segmentation": [BOX]}, {"segmentation": [BOX], "category_id": 9})
    (shot,) = coco.FORMAT.read_shots(folder(tmp_path, data))
    assert shot.label == {2: "dog"}


def test_an_image_with_crowds_alone_or_without_annotations_makes_no_shot(tmp_path):
    data = annotated({"segmentation": [BOX], "iscrowd": 1}, {"segmentation": [BOX], "image_id": 6})
    data["images"].append({"id": 6, "file_name": "b.jpg", "height": H, "width": W})
    picture(tmp_path / "b.jpg", (H, W))
    (shot,) = coco.FORMAT.read_shots(folder(tmp_path, data))
    assert shot.image == tmp_path / "b.jpg"
    assert coco.FORMAT.read_shots(folder(tmp_path, annotated())) == []


def test_boxes_alone_make_box_shots_of_each_class(tmp_path):
    data = annotated(
        {"bbox": [1, 2, 3, 4], "segmentation": []},
        {"bbox": [0, 0, 2, 2], "category_id": 9},
        {"bbox": [5, 0, 2, 2]},
    )
    cat, dog = coco.FORMAT.read_shots(folder(tmp_path, data))
    assert (cat.label, cat.boxes.tolist()) == ("cat", [[1, 2, 4, 6], [5, 0, 7, 2]])
    assert (dog.label, dog.boxes.tolist()) == ("dog", [[0, 0, 2, 2]])


def test_categories_of_one_name_are_one_class(tmp_path):
    data = annotated({"segmentation": [BOX]}, {"segmentation": [[6, 0, 8, 0, 8, 2, 6, 2]], "category_id": 9})
    data["categories"][1]["name"] = "cat"
    (shot,) = coco.FORMAT.read_shots(folder(tmp_path, data))
    assert shot.label == {1: "cat"} and shot.mask.sum() == 9 + 4


def test_other_json_files_are_none_of_its_business(tmp_path):
    text(tmp_path / "classes.json", {"1": "cat"})
    text(tmp_path / "list.json", [1, 2])
    text(tmp_path / "captions.json", {"images": [], "annotations": []})
    assert coco.FORMAT.read_shots(tmp_path) is None


def changed(place, value):
    data = annotated({"segmentation": [BOX], "bbox": [2, 1, 3, 3]})
    *way, last = place
    inner = data
    for key in way:
        inner = inner[key]
    inner[last] = copy.deepcopy(value)
    return data


SHAPE = ("annotations", 0, "segmentation")
WRONG = [
    (("annotations", 0, "image_id"), 6, "annotation 1: no entry has its image_id 6; there are 5"),
    (("annotations", 0, "category_id"), 4, "annotation 1: no entry has its category_id 4; there are 3, 9, 10"),
    (("annotations", 0, "category_id"), [3], "annotation 1: expected 'category_id'"),
    (("annotations", 0, "category_id"), True, "annotation 1: expected 'category_id'"),
    (("annotations", 0), 7, "expected objects in 'annotations', got 7 at place 1"),
    (("annotations",), {}, "expected 'annotations' as a list, got dict"),
    (("images", 0, "height"), 7, "image 5: .*a.jpg is 8 x 6 pixels as displayed, but the entry says 8 x 7"),
    (("images", 0, "height"), -6, "image 5: expected 'height' as a whole number"),
    (("images", 0, "width"), 8.5, "image 5: expected 'width' as a whole number"),
    (("images", 0, "width"), None, "image 5: expected 'width'"),
    (("images", 0, "width"), float("inf"), "image 5: expected 'width'"),
    (("images", 0, "file_name"), "b.jpg", "image 5: no file 'b.jpg'"),
    (("images", 0, "file_name"), "../a.jpg", "image 5: its file_name: expected the name of an image below the folder"),
    (("images", 0, "file_name"), "/b.jpg", "image 5: no file '/b.jpg'"),
    (("images", 0, "file_name"), "", "image 5: its file_name: expected the name of an image below the folder"),
    (("images", 0, "file_name"), "a\0.jpg", "image 5: its file_name: expected the name of an image below the folder"),
    (("images", 0, "id"), None, "image None: expected 'id'"),
    (("images",), [{"id": 5}, {"id": 5}], "image 5: this id occurs twice in 'images'"),
    (("categories", 0, "name"), " ", "category 3: its name is empty"),
    (("categories", 0, "name"), 3, "category 3: expected 'name' as str, got 3"),
    (("categories", 1, "id"), 3, "category 3: this id occurs twice"),
    (("annotations", 0, "bbox"), [2, 1, -3, 3], "annotation 1: expected bbox .* negative"),
    (("annotations", 0, "bbox"), [2, 1, 3], "annotation 1: expected bbox"),
    (("annotations", 0, "bbox"), "all", "annotation 1: expected 'bbox' as list"),
    (SHAPE, [], None),
    (SHAPE, "text", "annotation 1: expected 'segmentation' as list or dict"),
    (SHAPE, [[1, 2, 3, 4]], "annotation 1: expected a polygon of at least three"),
    (SHAPE, [[*BOX, 3]], "annotation 1: expected a polygon of at least three"),
    (SHAPE, [[1, 2, 3, 4, "5", 6]], "annotation 1: expected a polygon as a list of numbers"),
    (SHAPE, [[1, 2, 3, 4, float("nan"), 6]], "annotation 1: expected a polygon as a list of numbers"),
    (SHAPE, [[1, 2, 3, 4, 5e8, 6]], "annotation 1: a polygon lies far outside its image of 8 x 6"),
    (SHAPE, [BOX, None], "annotation 1: expected a polygon as a list of numbers"),
    (SHAPE, {"size": [8, 6], "counts": [48]}, r"annotation 1: expected an RLE of size \[6, 8\]"),
    (SHAPE, {"size": [6, 8], "counts": [40]}, "annotation 1: its RLE covers 40 pixels, but its image has 48"),
    (SHAPE, {"size": [6, 8], "counts": [40, 10]}, "annotation 1: its RLE covers 50 pixels"),
    (SHAPE, {"size": [6, 8], "counts": [50, -2]}, "annotation 1: expected RLE counts"),
    (SHAPE, {"size": [6, 8], "counts": None}, "annotation 1: expected RLE counts"),
    (SHAPE, {"size": [6, 8], "counts": ""}, "annotation 1: its RLE covers 0 pixels"),
    (SHAPE, {"size": [6, 8], "counts": "é"}, "annotation 1: no compressed RLE has the character 'é'"),
    (SHAPE, {"size": [6, 8], "counts": "o"}, "annotation 1: its compressed RLE ends within a number"),
    (SHAPE, {"size": [6, 8], "counts": "o" * 20}, "annotation 1: its compressed RLE holds a number beyond"),
]


@pytest.mark.parametrize(("place", "value", "says"), [row for row in WRONG if row[2]])
def test_what_is_wrong_is_refused_by_file_and_item(place, value, says, tmp_path):
    with pytest.raises(SupportError, match=says) as refused:
        coco.FORMAT.read_shots(folder(tmp_path, changed(place, value)))
    assert str(tmp_path / "coco.json") in str(refused.value)


def test_a_box_beside_an_outline_is_a_shot_of_its_class_or_counted_where_that_is_outlined(tmp_path):
    outline, dog = {"segmentation": [BOX]}, {"bbox": [6, 1, 2, 2], "category_id": 9}
    shots = coco.FORMAT.read_shots(folder(tmp_path, annotated(outline, dog, {"bbox": [0, 4, 2, 2]})))
    mask, box = shots
    assert mask.label == {1: "cat"} and box.label == "dog" and box.boxes.tolist() == [[6, 1, 8, 3]]
    assert (mask.mask[4:6, :2] == 255).all() and (mask.mask[1:3, 6:] == 255).all()
    assert shots.skipped.counts == {"box of a class that its image outlines, whose area counts as undecided": 1}


@pytest.mark.parametrize("box", [[1, 1, 0, 3], [1, 1, 3, -1], [1, 2], None])
def test_a_box_alone_needs_a_size(box, tmp_path):
    with pytest.raises(SupportError, match=r"coco\.json: annotation 1: expected '?bbox"):
        coco.FORMAT.read_shots(folder(tmp_path, annotated({"bbox": box})))


@pytest.mark.parametrize("content", ["{'images': []}", "", "[" * 100_000, "\x00"])
def test_malformed_json_is_refused_by_its_name(content, tmp_path):
    with pytest.raises(SupportError, match=r"coco\.json: not valid JSON"):
        coco.FORMAT.read_shots(folder(tmp_path, content))


def test_two_coco_files_are_refused_by_their_names(tmp_path):
    folder(tmp_path, annotated(), name="annotations/train.json")
    folder(tmp_path, annotated(), name="annotations/val.json")
    with pytest.raises(SupportError, match=r"train\.json.*val\.json"):
        coco.FORMAT.read_shots(tmp_path)


def test_more_classes_than_a_mask_holds_are_refused(tmp_path):
    data = annotated(*({"segmentation": [BOX], "category_id": i} for i in range(255)))
    data["categories"] = [{"id": i, "name": f"class {i}"} for i in range(255)]
    with pytest.raises(SupportError, match="255 annotated classes"):
        coco.FORMAT.read_shots(folder(tmp_path, data))


def two(data, name="b.jpg"):
    data["images"].append({"id": 6, "file_name": name, "height": H, "width": W})
    return data


def test_where_every_annotation_is_a_crowd_they_are_objects_with_a_word(tmp_path):
    ring = SQUARE.copy()
    ring[2, 3] = 0
    read = coco.FORMAT.read_annotations(folder(tmp_path, annotated({"segmentation": plain(ring), "iscrowd": 1})))
    (image,) = read.images
    assert [(one.ignore, one.area) for one in image.annotations] == [(False, 8)]
    assert "every annotation is marked iscrowd" in read.skipped.notes[0]


def test_two_images_of_one_name_are_refused_by_that_name(tmp_path):
    for read in (coco.FORMAT.read_annotations, coco.FORMAT.read_shots):
        with pytest.raises(SupportError, match=r"two images of one file_name, 'a\.jpg'"):
            read(folder(tmp_path, two(annotated({"segmentation": [BOX]}), "a.jpg")))


def test_files_in_train_and_valid_are_one_set_whose_images_keep_their_folder(tmp_path):
    for name, category in (("train", "cat"), ("valid", "dog")):
        data = annotated({"segmentation": [BOX]})
        data["categories"][0]["name"] = category
        folder(tmp_path / name, data, name="_annotations.coco.json")
    read = coco.FORMAT.read_annotations(tmp_path)
    assert [(image.name, image.stem, image.path) for image in read.images] == [
        ("train/a.jpg", "train/a", tmp_path / "train/a.jpg"),
        ("valid/a.jpg", "valid/a", tmp_path / "valid/a.jpg"),
    ]
    assert read.classes == ("cat", "dog", "unused")
    assert [shot.label for shot in coco.FORMAT.read_shots(tmp_path)] == [{1: "cat"}, {2: "dog"}]


def test_panoptic_files_are_named_as_such(tmp_path):
    data = annotated() | {"annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": []}]}
    with pytest.raises(SupportError, match=r"coco\.json: COCO panoptic, which is not read"):
        coco.FORMAT.read_annotations(folder(tmp_path, data))


def test_a_stray_point_beside_a_polygon_is_left_out_with_a_word(tmp_path):
    shots = coco.FORMAT.read_shots(folder(tmp_path, annotated({"segmentation": [BOX, [3, 3]]})))
    np.testing.assert_array_equal(shots[0].mask, SQUARE)
    assert "annotation 1: 1 polygon of less than three corners" in shots.skipped.failures[0]


def test_a_size_that_is_missing_is_that_of_the_image(tmp_path):
    data = two(annotated({"segmentation": [BOX]}))
    for image in data["images"]:
        del image["height"], image["width"]
    read = coco.FORMAT.read_annotations(folder(tmp_path, data))
    (image,) = read.images
    assert image.size_hw == (H, W) and image.annotations[0].area == 9
    assert "image 6: expected 'height'" in read.skipped.failures[0]  # b.jpg is not there


def test_annotations_of_no_image_or_class_fail_alone(tmp_path):
    data = annotated(
        {"segmentation": [BOX]}, {"segmentation": [BOX], "image_id": 7}, {"bbox": [0, 0, 2, 2], "category_id": 8}
    )
    shots = coco.FORMAT.read_shots(folder(tmp_path, data))
    assert [shot.label for shot in shots] == [{1: "cat"}] and len(shots.skipped.failures) == 2


def test_a_turned_box_is_a_mask_unless_it_stands_upright_again_and_key_points_are_counted(tmp_path):
    box = {"bbox": [2, 2, 4, 2], "attributes": {"rotation": 90.0}}
    turned = {"bbox": [2, 1, 4, 4], "attributes": {"rotation": 45.0}}
    read = coco.FORMAT.read_annotations(
        folder(tmp_path, annotated(box, {"segmentation": [BOX], "keypoints": [1, 1, 2]}, turned))
    )
    (image,) = read.images
    np.testing.assert_allclose(image.prompts.boxes["cat"], [[3, 1, 5, 5]])
    assert image.annotations[0].area == 9
    assert image.annotations[1].mask.sum(1).tolist() == [0, 2, 4, 4, 2, 0]  # a diamond about (4, 3)
    assert read.skipped.counts == {"set of key points": 1}
