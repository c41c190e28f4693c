import itertools

import numpy as np
import pytest

from kshot import _plugins
from kshot.errors import MaskError, SupportError
from kshot.formats import base
from kshot.io.images import read_mask
from kshot.types import SupportSet
from tests.support.files import mask, picture, square, text


def of_layout(root, layout):
    """The least folder of each layout, with one cat."""
    if layout == "support.yaml":
        picture(root / "a.jpg")
        text(root / "support.yaml", "- {image: a.jpg, boxes: [1, 1, 4, 4], label: cat}")
    elif layout == "VOC":
        picture(root / "JPEGImages/a.jpg")
        mask(root / "SegmentationClass/a.png", square(8))
    elif layout == "COCO":
        picture(root / "a.jpg")
        text(
            root / "x.json",
            {
                "images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 4, 1, 4, 4]]}],
            },
        )
    elif layout == "index masks":
        picture(root / "images/a.jpg")
        mask(root / "masks/a.png", square(1))
        text(root / "classes.json", {"1": "cat"})
    elif layout == "class folders":
        picture(root / "cat/a.jpg")
        mask(root / "cat/a.png", square(1))
    return root


LAYOUTS = ["support.yaml", "VOC", "COCO", "index masks", "class folders"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_recognised_and_named(layout, tmp_path):
    support = SupportSet.from_folder(of_layout(tmp_path / "support", layout))
    assert support.source == f"{layout} in {tmp_path.as_posix()}/support/"
    assert support.classes == ("cat",) and len(support) == 1


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise(LAYOUTS)))
def test_where_two_layouts_fit_the_documented_order_decides(first, second, tmp_path):
    of_layout(of_layout(tmp_path, second), first)
    assert base.read_support(tmp_path).source.startswith(f"{first} in ")


def test_every_reader_says_what_it_looks_for_in_one_line():
    names = [reader.name for reader in base.readers()]
    assert names[:4] == ["support_yaml", "kshot_run", "voc", "coco"] and names[-2:] == ["index_masks", "class_folders"]
    assert set(names) < set(_plugins.names("formats"))
    for reader in base.readers():
        assert ": " in reader.layout and "\n" not in reader.layout


def test_helpers_are_no_formats():
    assert {"png", "overlay", "scores", "coco", "voc"} <= set(_plugins.names("formats"))
    assert not {"base", "__init__"} & set(_plugins.names("formats"))


def test_missing_folders_files_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(SupportError, match="nowhere: no such folder; check the path"):
        base.read_support(tmp_path / "nowhere")
    with pytest.raises(SupportError, match="a file, where"):
        base.read_support(picture(tmp_path / "a.jpg"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.hidden").touch()
    with pytest.raises(SupportError, match="empty: the folder is empty"):
        base.read_support(tmp_path / "empty")


def test_an_unknown_layout_lists_what_was_looked_for_and_what_is_there(tmp_path):
    for i in range(7):
        text(tmp_path / f"{i}.txt", "notes")
    (tmp_path / "0 sub").mkdir()
    with pytest.raises(SupportError) as refused:
        base.read_support(tmp_path)
    for reader in base.readers():
        assert reader.layout in str(refused.value)
    assert "found 0 sub/, 0.txt, 1.txt, 2.txt, 3.txt and 3 more" in str(refused.value)


def test_a_layout_without_a_single_shot_is_refused_by_its_name(tmp_path):
    of_layout(tmp_path, "index masks")
    mask(tmp_path / "masks/a.png", square(255))
    with pytest.raises(SupportError, match="no shot in index masks in "):
        base.read_support(tmp_path)


def two_classes(root):
    """Index masks: a has cat and dog and a bit of ignore, b has a cow, c a dog."""
    both = square(1)
    both[4:, 5:], both[0, 0] = 2, 255
    for name, labels in {"a": both, "b": square(3), "c": square(2)}.items():
        picture(root / f"images/{name}.jpg")
        mask(root / f"masks/{name}.png", labels)
    text(root / "classes.json", {"1": "cat", "2": "dog", "3": "cow", "4": "yak"})
    return both


def test_classes_keep_the_order_of_their_labels_and_those_that_nobody_shows_are_left_out(tmp_path):
    two_classes(tmp_path)
    support = base.read_support(tmp_path)
    assert support.classes == ("cat", "dog", "cow")
    assert [shot.label for shot in support] == [{1: "cat", 2: "dog"}, {3: "cow"}, {2: "dog"}]


def test_wanted_classes_come_alone_in_their_order_and_others_become_background(tmp_path):
    both = two_classes(tmp_path)
    support = base.read_support(tmp_path, ["cow", "dog"])
    assert support.classes == ("cow", "dog")
    a, b, c = support
    assert (a.label, b.label, c.label) == ({2: "dog"}, {3: "cow"}, {2: "dog"})
    np.testing.assert_array_equal(a.mask, np.where(both == 1, 0, both))
    assert c.mask == tmp_path / "masks/c.png"
    np.testing.assert_array_equal(read_mask(c.mask), square(2))


def test_wanted_classes_choose_among_class_folders(tmp_path):
    for name in ("cat", "dog"):
        picture(tmp_path / name / "a.jpg")
    assert [shot.label for shot in base.read_support(tmp_path, ("dog",))] == ["dog"]


def test_a_wanted_class_that_nobody_shows_is_refused_with_those_that_are_shown(tmp_path):
    two_classes(tmp_path)
    with pytest.raises(SupportError, match="no shot shows yak; it has cat, dog, cow"):
        base.read_support(tmp_path, ["cat", "yak"])


def test_undeclared_labels_stay_for_the_fit_to_refuse(tmp_path):
    picture(tmp_path / "a.jpg")
    labels = square(1)
    labels[5] = [2, 2, 9, 9, 255, 0, 0, 0]
    mask(tmp_path / "a.png", labels)
    text(tmp_path / "support.yaml", "- {image: a.jpg, mask: a.png, label: {1: cat, 2: dog}}")
    (shot,) = base.read_support(tmp_path, ["cat"])
    np.testing.assert_array_equal(shot.mask, np.where(labels == 2, 0, labels))


def test_index_masks_and_voc_refuse_labels_beyond_their_classes(tmp_path):
    of_layout(tmp_path / "index", "index masks")
    mask(tmp_path / "index/masks/a.png", square(7))
    with pytest.raises(MaskError, match=r"a\.png: holds labels that no class has: \[7\]; the classes are 1 = cat"):
        base.read_support(tmp_path / "index")
    of_layout(tmp_path / "voc", "VOC")
    mask(tmp_path / "voc/SegmentationClass/a.png", square(21))
    with pytest.raises(MaskError, match=r"\[21\]"):
        base.read_support(tmp_path / "voc")
