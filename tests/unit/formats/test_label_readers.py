"""What people mark in labelme, CVAT, Label Studio and YOLO, as supports: counted by hand."""

import base64
import json

import numpy as np
import pytest

from kshot.annotations.model import Export
from kshot.errors import SupportError
from kshot.formats import coco, cvat, label_studio, labelme, voc, yolo
from kshot.formats.base import read_support
from tests.support.files import picture, text

H, W = 20, 40
SQUARE = [[4, 2], [10, 2], [10, 8], [4, 8]]


def square() -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[2:8, 4:10] = 1
    return mask


def of_labelme(root, *shapes, **more):
    picture(root / "a.jpg", (H, W))
    data = {"version": "5.5.0", "flags": {}, "imagePath": "a.jpg", "imageData": None, "imageHeight": H, "imageWidth": W}
    text(root / "a.json", data | {"shapes": list(shapes)} | more)
    return root


def shape(kind, points, label="cat", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def test_labelme_shapes_become_masks_boxes_points_and_scribbles(tmp_path):
    folder = of_labelme(
        tmp_path,
        shape("polygon", SQUARE),
        shape("rectangle", [[30, 15], [20, 5]], "dog"),
        shape("point", [[3, 4]], "cow"),
        shape("linestrip", [[1, 1], [5, 9], [7, 7]], "yak"),
        shape("polygon", [[0, 12], [5, 12], [5, 15]], "__ignore__"),
    )
    mask, box, point, line = labelme.FORMAT.read_shots(folder)
    assert mask.label == {1: "cat"} and (mask.mask == 1).sum() == 36
    np.testing.assert_array_equal(mask.mask[:10] == 1, square()[:10] == 1)
    assert (mask.mask[5:15, 20:30] == 255).all() and (mask.mask[12:15, :5] == 255).any()
    assert box.boxes.tolist() == [[20, 5, 30, 15]] and box.label == "dog"
    assert point.points.tolist() == [[3, 4]] and line.scribbles[0].tolist() == [[1, 1], [5, 9], [7, 7]]
    assert read_support(folder).source.startswith("labelme in ")


def test_a_circle_is_a_disc_and_shapes_of_a_group_are_one_object(tmp_path):
    folder = of_labelme(
        tmp_path,
        shape("circle", [[20, 10], [26, 10]]),
        shape("polygon", SQUARE, "dog", group_id=3),
        shape("polygon", [[30, 2], [33, 2], [33, 5], [30, 5]], "dog", group_id=3),
    )
    (image,) = labelme.FORMAT.read_annotations(folder).images
    disc, dog = image.annotations
    assert abs(disc.area - np.pi * 36) < 4 and dog.area == 36 + 9


@pytest.mark.parametrize("writer", [coco, cvat, label_studio, labelme, voc, yolo])
@pytest.mark.parametrize("polygons", [False, True])
def test_what_marks_no_pixel_is_left_out_of_every_format(writer, polygons, tmp_path):
    folder = of_labelme(tmp_path / "in", shape("polygon", [[1, 1], [1, 1], [1.1, 1]]), shape("polygon", SQUARE))
    (image,) = labelme.FORMAT.read_annotations(folder).images
    assert [part.area for part in image.annotations] == [36]
    writer.FORMAT.write_annotations(
        labelme.FORMAT.read_annotations(folder), tmp_path / "out", Export(polygons=polygons)
    )


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (shape("polygon", [[1, 1], [2, 2]]), "shape 1: expected a polygon of at least three"),
        (shape("polygon", [[1, 1], [2, 2], [9999, 3]]), "far outside its image of 40 x 20"),
        (shape("mask", [[1, 1], [3, 3]], mask="!"), "no PNG as base64"),
        (shape("banana", SQUARE), "unknown shape_type 'banana'"),
        (shape("rectangle", [[1, 1], [1, 5]]), "its box has no area"),
        (shape("polygon", SQUARE, label=" "), "its label is empty"),
    ],
)
def test_wrong_shapes_of_labelme_name_the_file_and_the_shape(broken, says, tmp_path):
    with pytest.raises(SupportError, match=says) as refused:
        labelme.FORMAT.read_shots(of_labelme(tmp_path, broken))
    assert str(tmp_path / "a.json") in str(refused.value)
    with pytest.raises(SupportError, match=r"a\.jpg is 40 x 20 pixels as displayed, but the entry says 40 x 21"):
        labelme.FORMAT.read_shots(of_labelme(tmp_path, imageHeight=H + 1))


CVAT = """<annotations><version>1.1</version><meta><job><labels><label><name>cat</name></label></labels></job></meta>
<image id="0" name="sub/a.jpg" width="40" height="20">
  <polygon label="cat" points="4.00,2.00;10.00,2.00;10.00,8.00;4.00,8.00" occluded="0" z_order="0"/>
  <mask label="dog" rle="1, 2, 1" left="30" top="3" width="2" height="2" z_order="0"/>
  <box label="cow" xtl="10" ytl="4" xbr="20" ybr="6" rotation="90.0"/>
  <points label="cow" points="3.5,4;5,6"/>
  <tag label="nice"/>
  %s
</image></annotations>"""


def test_cvat_shapes_and_a_turned_box(tmp_path):
    picture(tmp_path / "images/sub/a.jpg", (H, W))
    text(tmp_path / "annotations.xml", CVAT % "")
    mask, cow = cvat.FORMAT.read_shots(tmp_path)
    assert mask.label == {1: "cat", 2: "dog"} and np.argwhere(mask.mask == 2).tolist() == [[3, 31], [4, 30]]
    np.testing.assert_array_equal(mask.mask == 1, square())
    np.testing.assert_allclose(cow.boxes, [[14, 0, 16, 10]], atol=1e-9)
    assert cow.points.tolist() == [[3.5, 4], [5, 6]]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ('<mask label="x" rle="1, 2" left="0" top="0" width="2" height="2"/>', "cover 3 pixels, but its box has 4"),
        ('<mask label="x" rle="4" left="39" top="0" width="2" height="2"/>', "outside its image"),
        ('<polygon label="x" points="1,2;3"/>', "expected points as"),
        ('<box label="x" xtl="5" ytl="1" xbr="5" ybr="4"/>', "xtl < xbr"),
        ('<ellipse label="x" cx="5" cy="1" rx="nan" ry="4"/>', "expected a number"),
    ],
)
def test_wrong_shapes_of_cvat_name_the_image_and_the_shape(broken, says, tmp_path):
    picture(tmp_path / "sub/a.jpg", (H, W))
    text(tmp_path / "x.xml", CVAT % broken)
    shots = cvat.FORMAT.read_shots(tmp_path)
    (failure,) = shots.skipped.failures
    assert says in failure and "x.xml: image 'sub/a.jpg': " in failure
    assert [shot.label for shot in shots] == [{1: "cat", 2: "dog"}, "cow"]


def region(kind, value, label="cat", **more):
    about = {"original_width": W, "original_height": H, "image_rotation": 0, "from_name": "l", "to_name": "i"}
    return about | {"type": kind, "value": {**value, kind: [label]}} | more


def task(*regions, image="/data/upload/3/0a1b2c3d-a.jpg", **more):
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": list(regions)}]} | more


PERCENT = [[x * 100 / W, y * 100 / H] for x, y in SQUARE]


@pytest.mark.parametrize(
    "address", ["/data/upload/3/0a1b2c3d-a.jpg", "/data/local-files/?d=set%20one/a.jpg", "s3://bucket/x/a.jpg", "a.jpg"]
)
def test_label_studio_regions_in_percent_and_images_by_any_address(address, tmp_path):
    picture(tmp_path / "images/a.jpg", (H, W))
    marked = [
        region("polygonlabels", {"points": PERCENT}),
        region("rectanglelabels", {"x": 50, "y": 25, "width": 25, "height": 50, "rotation": 0}, "dog"),
        region("keypointlabels", {"x": 10, "y": 10, "width": 1}, "cow"),
        {"type": "choices", "value": {"choices": ["fine"]}},
    ]
    text(tmp_path / "export.json", [task(*marked, image=address)])
    mask, box, point = label_studio.FORMAT.read_shots(tmp_path)
    np.testing.assert_array_equal(mask.mask == 1, square())
    assert mask.image == tmp_path / "images/a.jpg"
    assert box.boxes.tolist() == [[20, 5, 30, 15]] and point.points.tolist() == [[4, 2]]


def test_an_image_is_not_taken_for_one_of_the_same_name_in_another_folder(tmp_path):
    picture(tmp_path / "val/a.jpg", (H, W))
    text(tmp_path / "x.xml", CVAT.replace("sub/a.jpg", "train/a.jpg") % "")
    (image,) = cvat.FORMAT.read_annotations(tmp_path).images
    assert image.path is None
    with pytest.raises(SupportError, match=r"train/a\.jpg: no such image"):
        cvat.FORMAT.read_shots(tmp_path)
    text(tmp_path / "x.xml", CVAT.replace("sub/a.jpg", "a.jpg") % "")
    (image,) = cvat.FORMAT.read_annotations(tmp_path).images
    assert image.path == tmp_path / "val/a.jpg"


def test_of_several_answers_the_ground_truth_counts_and_then_the_first_that_was_not_cancelled(tmp_path):
    picture(tmp_path / "a.jpg", (H, W))
    answers = [{"result": [region("polygonlabels", {"points": PERCENT}, name)]} for name in ("no", "first", "truth")]
    answers[0]["was_cancelled"] = True
    text(tmp_path / "x.json", [task() | {"annotations": answers}])
    assert label_studio.FORMAT.read_annotations(tmp_path).classes == ("first",)
    answers[2]["ground_truth"] = True
    text(tmp_path / "x.json", [task() | {"annotations": answers}])
    assert label_studio.FORMAT.read_annotations(tmp_path).classes == ("truth",)


def test_wrong_regions_of_label_studio_name_the_task_and_the_region(tmp_path):
    picture(tmp_path / "a.jpg", (H, W))
    good = {"format": "rle", "rle": [0, 0, 12, 128, 57, 27, 255]}
    for broken, says in [
        (region("brushlabels", good), "its rle is damaged: it ends within a run"),
        (region("brushlabels", {"rle": [0, 0, 0, 9, 57, 27, 255]}), "its rle is damaged: it holds 9 values"),
        (region("brushlabels", {"rle": [300]}), "list of bytes"),
        (region("polygonlabels", {"points": PERCENT}, image_rotation=90), "turned image"),
        (region("polygonlabels", {"points": PERCENT}, original_width=41), "but the entry says 41 x 20"),
    ]:
        text(tmp_path / "x.json", [task(broken)])
        with pytest.raises(SupportError, match="task 7: region 1: ") as refused:
            label_studio.FORMAT.read_shots(tmp_path)
        assert says in str(refused.value)


def test_yolo_sets_of_roboflow_with_boxes_and_polygons(tmp_path):
    for name, line in {"train": "1 0.625 0.5 0.25 0.5", "valid": "0 0.1 0.1 0.25 0.1 0.25 0.4 0.1 0.4"}.items():
        picture(tmp_path / name / "images/a.jpg", (H, W))
        text(tmp_path / name / "labels/a.txt", line + "\n")
    text(tmp_path / "data.yaml", json.dumps({"train": "train/images", "names": ["cat", "dog"]}))
    box, mask = yolo.FORMAT.read_shots(tmp_path)
    assert box.label == "dog" and box.boxes.tolist() == [[20, 5, 30, 15]]
    np.testing.assert_array_equal(mask.mask, square())
    assert [image.stem for image in yolo.FORMAT.read_annotations(tmp_path).images] == [
        "train/images/a",
        "valid/images/a",
    ]


def yolo_folder(root, lines, **data):
    """A folder of YOLO with one image."""
    picture(root / "images/a.jpg", (H, W))
    text(root / "labels/a.txt", lines)
    text(root / "data.yaml", json.dumps({"names": ["cat", "dog"], **data}))
    return root


@pytest.mark.parametrize(
    ("shape", "key_points"),
    [([2, 3], "0.6 0.3 2 0.7 0.6 1"), ([3, 3], "0.6 0.3 2 0 0 0 0.7 0.6 1"), ([2, 2], "0.6 0.3 0.7 0.6")],
)
def test_yolo_poses_are_boxes_with_points_and_never_polygons(shape, key_points, tmp_path):
    yolo_folder(tmp_path, f"1 0.625 0.5 0.25 0.5 {key_points}\n0 0.2 0.5 0.1 0.5 {key_points} 0.9", kpt_shape=shape)
    (image,) = yolo.FORMAT.read_annotations(tmp_path).images
    assert image.annotations == ()
    assert image.prompts.boxes == {"dog": [[20, 5, 30, 15]], "cat": [[6, 5, 10, 15]]}
    np.testing.assert_allclose(image.prompts.points["dog"], [[24, 6], [28, 12]])


def test_yolo_key_points_without_their_number_are_refused(tmp_path):
    yolo_folder(tmp_path, "0 0.5 0.5 0.4 0.5 0.4 0.3 1 0.6 0.7 2")
    with pytest.raises(SupportError, match=r"a\.txt: line 1: .*box and key points; .*kpt_shape in data\.yaml"):
        yolo.FORMAT.read_shots(tmp_path)
    yolo_folder(tmp_path, "0 0.5 0.5 0.4 0.5 0.4 0.3 0.6 0.7 0.1", kpt_shape=[2, 3])
    with pytest.raises(SupportError, match=r"expected a box and 2 key points of 3 numbers \(kpt_shape\), got 9"):
        yolo.FORMAT.read_shots(tmp_path)
    yolo_folder(tmp_path, "", kpt_shape="many")
    with pytest.raises(SupportError, match="expected kpt_shape as"):
        yolo.FORMAT.read_annotations(tmp_path)


def test_a_yolo_polygon_over_the_whole_image_is_no_pose(tmp_path):
    yolo_folder(tmp_path, "0 0 0 0.5 0 1 0 1 1 0 1\n")
    (image,) = yolo.FORMAT.read_annotations(tmp_path).images
    assert image.annotations[0].area == H * W


def test_yolo_lines_may_end_with_a_confidence(tmp_path):
    yolo_folder(tmp_path, "0 0.1 0.1 0.25 0.1 0.25 0.4 0.1 0.4 0.87\n1 0.625 0.5 0.25 0.5 0.61\n1 0.2 0.5 0.1 0.5 0.5")
    found = yolo.FORMAT.read_annotations(tmp_path)
    (image,) = found.images
    np.testing.assert_array_equal(image.annotations[0].mask, square() > 0)
    assert image.annotations[0].score == 0.87
    assert image.prompts.boxes["dog"][0] == [20, 5, 30, 15]
    assert found.skipped.counts == {"confidence of a box": 2}


def test_yolo_labels_without_an_image_are_named(tmp_path):
    yolo_folder(tmp_path, "0 0.625 0.5 0.25 0.5\n")
    for name in ("b.txt", "deep/c.txt", "classes.txt"):
        text(tmp_path / "labels" / name, "0 0.625 0.5 0.25 0.5\n")
    found = yolo.FORMAT.read_annotations(tmp_path)
    assert len(found.images) == 1
    assert found.skipped.notes == ("no image for labels/b.txt, labels/deep/c.txt",)
    assert found.skipped.counts == {"file of labels without an image": 2}


def test_a_yolo_file_that_cannot_be_read_fails_alone(tmp_path):
    yolo_folder(tmp_path, "0 0.625 0.5 0.25 0.5\n")
    picture(tmp_path / "images/b.jpg", (H, W))
    text(tmp_path / "labels/b.txt", "0 0.625 0.5\n")
    found = yolo.FORMAT.read_annotations(tmp_path)
    assert [image.name for image in found.images] == ["a.jpg"]
    assert "b.txt: line 1: expected a box" in found.skipped.failures[0]


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "jpg", "png", "bmp", "dib", "webp", "pnm", "j2k", "tif"])
def test_yolo_images_of_every_known_suffix_are_found(suffix, tmp_path):
    yolo_folder(tmp_path, "0 0.625 0.5 0.25 0.5\n")
    (tmp_path / "images/a.jpg").unlink()
    picture(tmp_path / f"images/a.{suffix}", (H, W))
    found = yolo.FORMAT.read_annotations(tmp_path)
    (image,) = found.images
    assert image.size_hw == (H, W) and image.prompts and not found.skipped.lines


def one_image(read):
    (image,) = read.images
    return image


def test_a_background_polygon_of_labelme_cuts_what_lies_before_it(tmp_path):
    hole = [[5, 3], [7, 3], [7, 5], [5, 5]]
    shapes = [shape("polygon", SQUARE), shape("polygon", hole, "_background_"), shape("polygon", hole, "dog")]
    image = one_image(labelme.FORMAT.read_annotations(of_labelme(tmp_path, *shapes)))
    assert [(one.label, one.area) for one in image.annotations] == [("cat", 32), ("dog", 4)]
    upright = shape("rectangle", [[5, 3], [7, 5]], "_background_")
    image = one_image(labelme.FORMAT.read_annotations(of_labelme(tmp_path, shapes[0], upright)))
    assert [one.area for one in image.annotations] == [32] and not image.prompts


def test_four_corners_are_a_box_where_upright_and_a_mask_where_turned(tmp_path):
    turned = [[20, 5], [25, 10], [20, 15], [15, 10]]
    shapes = [shape("rectangle", SQUARE), shape("rectangle", turned, "dog"), shape("rotation", turned, "cow")]
    image = one_image(labelme.FORMAT.read_annotations(of_labelme(tmp_path, *shapes)))
    assert image.prompts.boxes == {"cat": [[4, 2, 10, 8]]}
    assert [(one.label, abs(one.area - 50) < 6) for one in image.annotations] == [("dog", True), ("cow", True)]


def test_unknown_shapes_of_labelme_are_counted_beside_the_others(tmp_path):
    shots = labelme.FORMAT.read_shots(of_labelme(tmp_path, shape("polygon", SQUARE), shape("cuboid", SQUARE)))
    assert len(shots) == 1 and shots.skipped.counts == {"an unknown shape_type 'cuboid'": 1}


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_an_image_in_a_file_of_labelme_is_used_and_written(prefix, tmp_path):
    folder = of_labelme(tmp_path / "in", shape("polygon", SQUARE))
    packed = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").unlink()
    text(
        folder / "a.json",
        json.loads((folder / "a.json").read_text()) | {"imageData": prefix + base64.b64encode(packed).decode()},
    )
    (shot,) = labelme.FORMAT.read_shots(folder)
    assert shot.image == packed
    labels = labelme.FORMAT.read_annotations(folder)
    voc.FORMAT.write_annotations(labels, tmp_path / "out")
    assert (tmp_path / "out/voc/JPEGImages/a.jpg").read_bytes() == packed
    (shot,) = voc.FORMAT.read_shots(tmp_path / "out/voc")


OVER = [[0, 0], [20, 0], [20, 20], [0, 20]]


def test_a_later_shape_of_labelme_lies_on_the_earlier_and_stays_there(tmp_path):
    folder = of_labelme(tmp_path / "in", shape("polygon", SQUARE), shape("polygon", OVER, "dog"))
    labels = labelme.FORMAT.read_annotations(folder)
    assert not (one_image(labels).labels(("cat", "dog")) == 1).any()
    labelme.FORMAT.write_annotations(labels, tmp_path / "out")
    again = labelme.FORMAT.read_annotations(tmp_path / "out/labelme")
    assert not (one_image(again).labels(("cat", "dog")) == 1).any()


@pytest.mark.parametrize(("z_orders", "top"), [((0, 1), 2), ((1, 0), 1), ((0, 0), 2)])
def test_the_higher_z_order_of_cvat_is_on_top(z_orders, top, tmp_path):
    picture(tmp_path / "a.jpg", (H, W))
    pairs = [";".join(f"{x},{y}" for x, y in ring) for ring in (SQUARE, OVER)]
    shapes = [
        f'<polygon label="{n}" points="{p}" z_order="{z}"/>' for n, p, z in zip("ab", pairs, z_orders, strict=True)
    ]
    image = f'<image id="0" name="a.jpg" width="{W}" height="{H}">{"".join(shapes)}</image>'
    text(tmp_path / "x.xml", f"<annotations>{image}</annotations>")
    labels = cvat.FORMAT.read_annotations(tmp_path)
    assert one_image(labels).labels(("a", "b"))[4, 6] == top
    cvat.FORMAT.write_annotations(labels, tmp_path / "out")
    assert one_image(cvat.FORMAT.read_annotations(tmp_path / "out")).labels(("a", "b"))[4, 6] == top


def test_two_images_of_one_name_in_cvat_are_told_apart_by_their_subset(tmp_path):
    for name in ("train", "val"):
        picture(tmp_path / "images" / name / "a.jpg", (H, W))
    image = f'<image id="0" name="a.jpg" width="{W}" height="{H}" subset="%s"><tag label="t"/></image>'
    text(tmp_path / "x.xml", f"<annotations>{image % 'train'}{image % 'val'}</annotations>")
    read = cvat.FORMAT.read_annotations(tmp_path)
    assert [one.path for one in read.images] == [tmp_path / "images" / name / "a.jpg" for name in ("train", "val")]
    assert read.skipped.counts == {"tag": 2}
    text(tmp_path / "x.xml", f"<annotations>{image % 'train'}{image % 'train'}</annotations>")
    with pytest.raises(SupportError, match=r"two images of one name, 'train/a\.jpg'"):
        cvat.FORMAT.read_annotations(tmp_path)


def of_label_studio(root, *regions):
    picture(root / "a.jpg", (H, W))
    text(root / "x.json", [task(*regions)])
    return label_studio.FORMAT.read_annotations(root)


def test_ellipses_and_rectangles_of_label_studio_are_turned_in_pixels(tmp_path):
    ellipse = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 90}
    rectangle = {"x": 50, "y": 25, "width": 25, "height": 25, "rotation": 90}
    read = of_label_studio(tmp_path, region("ellipselabels", ellipse), region("rectanglelabels", rectangle, "dog"))
    image = one_image(read)
    rows, columns = np.nonzero(image.annotations[0].mask)
    # Half axes of 8 and 2 pixels about (20, 10), the longer one upright.
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (18, 21, 2, 17)
    # 10 x 5 pixels about the corner (20, 5): a quarter clockwise it reaches to the left and down.
    np.testing.assert_allclose(image.prompts.boxes["dog"], [[15, 5, 20, 15]])
    assert read.skipped.counts == {}


def test_a_label_beside_a_shape_of_label_studio_is_its_label(tmp_path):
    about = {"original_width": W, "original_height": H, "image_rotation": 0}
    box = {"x": 50, "y": 25, "width": 25, "height": 50, "rotation": 0}
    regions = [
        about | {"id": "p", "type": "polygon", "value": {"points": PERCENT}},
        about | {"id": "p", "type": "labels", "value": {"labels": ["seed"]}},
        about | {"id": "b", "type": "rectangle", "value": box},
        about | {"id": "b", "type": "labels", "value": {"labels": ["stone"]}},
        about | {"id": "u", "type": "ellipse", "value": {}},
        about | {"id": "v", "type": "bitmask", "value": {}},
    ]
    read = of_label_studio(tmp_path, *regions)
    image = one_image(read)
    assert read.classes == ("seed", "stone") and image.prompts.boxes == {"stone": [[20, 5, 30, 15]]}
    np.testing.assert_array_equal(image.annotations[0].mask, square())
    assert read.skipped.counts == {"ellipse without a label": 1, "bitmask": 1}


def test_one_wrong_region_of_label_studio_fails_alone(tmp_path):
    read = of_label_studio(
        tmp_path, region("polygonlabels", {"points": PERCENT}), region("brushlabels", {"rle": [300]})
    )
    assert len(one_image(read).annotations) == 1 and "region 2" in read.skipped.failures[0]


def test_json_min_is_named_as_such(tmp_path):
    text(tmp_path / "x.json", [{"id": 1, "image": "a.jpg", "annotation_id": 3, "annotator": 1, "label": []}])
    with pytest.raises(SupportError, match=r"x\.json: JSON-MIN of Label Studio"):
        label_studio.FORMAT.read_annotations(tmp_path)
