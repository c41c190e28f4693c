import numpy as np
import pytest

from kshot.errors import ShapeError, SupportError
from kshot.formats import index_masks, voc
from tests.support.files import mask, picture, square, text


def make(root, masks, classes="cat\ndog", name="classes.txt", mode="P"):
    for stem, labels in masks.items():
        picture(root / f"images/{stem}.jpg")
        mask(root / f"masks/{stem}.png", labels, mode)
    text(root / name, classes)
    return root


def test_a_shot_maps_the_labels_that_its_mask_holds(tmp_path):
    both = square(1)
    both[5], both[0] = 2, 255
    shots = index_masks.FORMAT.read_shots(make(tmp_path, {"b": both, "a": square(2), "sub/c": square(1)}))
    assert [shot.label for shot in shots] == [{2: "dog"}, {1: "cat", 2: "dog"}, {1: "cat"}]
    assert [shot.mask for shot in shots] == [tmp_path / "masks" / f"{stem}.png" for stem in ("a", "b", "sub/c")]


def test_images_without_a_mask_and_masks_without_a_class_are_left_out(tmp_path):
    make(tmp_path, {"a": square(1), "b": square(0), "c": square(255)})
    picture(tmp_path / "images/d.jpg")
    assert [shot.image.stem for shot in index_masks.FORMAT.read_shots(tmp_path)] == ["a"]


def test_white_in_a_grey_mask_is_a_single_class_but_ignore_beside_several(tmp_path):
    (shot,) = index_masks.FORMAT.read_shots(make(tmp_path / "one", {"a": square(255)}, "crack", mode="L"))
    assert shot.label == {1: "crack"}
    assert index_masks.FORMAT.read_shots(make(tmp_path / "two", {"a": square(255)}, mode="L")) == []


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("classes.json", {"1": "cat", "7": "dog"}, {1: "cat", 7: "dog"}),
        ("classes.json", {"0": "background", "2": " cat "}, {2: " cat "}),
        ("classes.json", '\ufeff{"1": "löwe"}', {1: "löwe"}),
        ("classes.txt", "cat\n  dog  \n\n", {1: "cat", 2: "dog"}),
        ("classes.txt", "background\ncat", {1: "cat"}),
        ("classes.txt", "_Background_\r\ncat\r\n", {1: "cat"}),
        ("classes.txt", "\ufeffcat", {1: "cat"}),
    ],
)
def test_classes_are_read_from_json_or_from_lines(name, content, expected, tmp_path):
    assert index_masks.read_classes(text(tmp_path / name, content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("classes.json", "{", "not valid JSON"),
        ("classes.json", ["cat"], "expected {"),
        ("classes.json", {"cat": 1}, "expected labels in 1..254"),
        ("classes.json", {"255": "cat"}, "expected labels in 1..254"),
        ("classes.json", {"-1": "cat"}, "expected labels in 1..254"),
        ("classes.json", {"²": "cat"}, "expected labels in 1..254"),
        ("classes.json", {"1": ""}, "expected labels in 1..254"),
        ("classes.json", {}, "names no class"),
        ("classes.json", {"1": "cat", "2": "cat"}, "cat stands there twice"),
        ("classes.txt", "cat\n\ndog", "line 2 is empty"),
        ("classes.txt", "", "names no class"),
        ("classes.txt", "background", "names no class"),
        ("classes.txt", "\n".join(map(str, range(255))), "255 classes; .* at most 254"),
    ],
)
def test_a_wrong_class_file_is_refused_by_its_name(name, content, says, tmp_path):
    path = text(tmp_path / name, content)
    with pytest.raises(SupportError, match=says) as refused:
        index_masks.read_classes(path)
    assert str(path) in str(refused.value)


def test_a_class_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_bytes("löwe".encode("latin-1"))
    with pytest.raises(SupportError, match=r"classes\.txt: not text"):
        index_masks.read_classes(tmp_path / "classes.txt")


def test_254_classes_fit(tmp_path):
    assert max(index_masks.read_classes(text(tmp_path / "classes.txt", "\n".join(map(str, range(254)))))) == 254


def test_two_class_files_or_masks_without_images_are_refused(tmp_path):
    make(tmp_path, {"a": square(1)})
    mask(tmp_path / "masks/lost.png", square(1))
    with pytest.raises(SupportError, match=r"1 mask without an image.*lost\.png"):
        index_masks.FORMAT.read_shots(tmp_path)
    text(tmp_path / "classes.json", {"1": "cat"})
    with pytest.raises(SupportError, match=r"both classes\.json and classes\.txt"):
        index_masks.FORMAT.read_shots(tmp_path)


def test_a_colour_mask_is_refused_by_its_name(tmp_path):
    make(tmp_path, {"a": square(1)})
    picture(tmp_path / "masks/a.png")
    with pytest.raises(ShapeError, match=r"masks/a\.png: a colour image"):
        index_masks.FORMAT.read_shots(tmp_path)


@pytest.mark.parametrize("missing", ["images", "masks", "classes"])
def test_without_both_folders_and_classes_it_is_another_layout(missing, tmp_path):
    for name in {"images", "masks"} - {missing}:
        (tmp_path / name).mkdir()
    if missing != "classes":
        text(tmp_path / "classes.txt", "cat")
    assert index_masks.FORMAT.read_shots(tmp_path) is None


def test_voc_has_its_twenty_classes_and_needs_no_image_sets(tmp_path):
    assert len(voc.CLASSES) == 20 and list(voc.CLASSES) == sorted(voc.CLASSES)
    labels = np.where(square(1) > 0, 15, 255)
    labels[5, 0] = 12
    picture(tmp_path / "JPEGImages/2007_1.jpg")
    picture(tmp_path / "JPEGImages/2007_2.jpg")
    mask(tmp_path / "SegmentationClass/2007_1.png", labels)
    (shot,) = voc.FORMAT.read_shots(tmp_path)
    assert shot.label == {12: "dog", 15: "person"}
    assert voc.FORMAT.read_shots(tmp_path / "JPEGImages") is None
