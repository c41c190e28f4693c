import numpy as np
import pytest

from kshot.data.base import load_dataset
from kshot.errors import DatasetError
from tests.support.dataset_layouts import HALF, labels, make_class_folders, make_index_masks, save, save_picture

TWO = {"1": "cat", "2": "dog"}


def test_index_masks_with_a_list_of_classes(tmp_path):
    masks = {"a": labels({1: HALF}), "sub/b": labels({2: HALF, 255: (0, 40, 9, 49)})}
    dataset = load_dataset("folder", make_index_masks(tmp_path / "pets", masks, TWO))
    assert dataset.name == "pets" and dataset.classes == ("cat", "dog")
    assert dataset.ids() == ("a", "sub/b")
    assert [tuple(pair) for pair in dataset.pairs()] == [("a", 1, 2048), ("sub/b", 2, 2048)]
    assert np.array_equal(dataset.truth("sub/b"), masks["sub/b"])
    assert dataset.image_path("sub/b") == tmp_path / "pets" / "images" / "sub" / "b.jpg"


def test_a_mask_of_255_alone_is_ignored_with_several_classes_and_drawn_with_one(tmp_path):
    mask = {"a": labels({255: HALF})}
    assert load_dataset("folder", make_index_masks(tmp_path / "two", mask, TWO)).areas() == ()
    one = load_dataset("folder", make_index_masks(tmp_path / "one", mask, {"1": "crack"}))
    assert [tuple(pair) for pair in one.areas()] == [("a", 1, 2048)]


def test_masks_called_x_mask(tmp_path):
    root = make_index_masks(tmp_path, {"a": labels({1: HALF})}, TWO)
    (root / "masks" / "a.png").rename(root / "masks" / "a_mask.png")
    assert load_dataset("folder", root).ids() == ("a",)


def test_one_sided_files_are_listed_or_stop(tmp_path):
    root = make_index_masks(tmp_path, {name: labels({1: HALF}) for name in "abc"}, TWO)
    (root / "images" / "a.jpg").unlink()
    (root / "masks" / "b.png").unlink()
    dataset = load_dataset("folder", root)
    assert dataset.ids() == ("c",)
    assert [(p.what, p.ids) for p in dataset.problems] == [
        ("images without a mask", ("b",)),
        ("masks without an image", ("a",)),
    ]
    with pytest.raises(DatasetError, match=r"1 image without a mask: b; 1 mask without an image: a; add what"):
        load_dataset("folder", root, strict=True)


def test_labels_outside_the_class_list_name_file_and_labels(tmp_path):
    dataset = load_dataset("folder", make_index_masks(tmp_path, {"a": labels({3: HALF})}, TWO))
    with pytest.raises(DatasetError, match=r"masks/a\.png: a holds labels outside the class list: \[3\]"):
        dataset.report()


def test_two_files_of_one_name_are_refused(tmp_path):
    root = make_index_masks(tmp_path, {"a": labels({1: HALF})}, TWO)
    save_picture(root / "images" / "a.png")
    with pytest.raises(DatasetError, match="two files of one name"):
        load_dataset("folder", root)


@pytest.mark.parametrize(
    ("classes", "told"), [({"1": "cat", "3": "dog"}, r"labels without a class: \[2\]"), ([], "expected")]
)
def test_bad_class_lists(tmp_path, classes, told):
    with pytest.raises(DatasetError, match=told):
        load_dataset("folder", make_index_masks(tmp_path, {"a": labels({1: HALF})}, classes))


def test_lists_beside_the_data_split_it(tmp_path):
    root = make_index_masks(tmp_path, {name: labels({1: HALF}) for name in "abc"}, TWO)
    (root / "train.txt").write_text("a\n\nb\n")
    (root / "val.txt").write_text("c\nd\n")
    dataset = load_dataset("folder", root)
    assert dataset.splits == {"train": ("a", "b"), "val": ("c",)}
    assert (dataset.query_split, dataset.support_split) == ("val", "train")
    assert str(dataset.problems[0]) == "1 image of val.txt without a file or a mask: d"


def test_a_list_that_is_no_text_is_refused(tmp_path):
    root = make_index_masks(tmp_path, {"a": labels({1: HALF})}, TWO)
    (root / "val.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DatasetError, match=r"val\.txt: a list of images was expected"):
        load_dataset("folder", root)


def test_a_folder_per_class(tmp_path):
    dataset = load_dataset("folder", make_class_folders(tmp_path, {"cat": 2, "dog": 3}))
    assert dataset.classes == ("cat", "dog") and len(dataset.ids()) == 5
    assert np.array_equal(dataset.truth("dog/dog1"), labels({2: HALF}))
    assert dataset.layout == "one folder per class"


def test_a_folder_per_class_with_ignored_pixels(tmp_path):
    root = make_class_folders(tmp_path, {"cat": 1, "dog": 1})
    save(root / "dog" / "dog0.png", labels({1: HALF, 255: (0, 40, 8, 48)}))
    assert np.array_equal(load_dataset("folder", root).truth("dog/dog0"), labels({2: HALF, 255: (0, 40, 8, 48)}))
    save(root / "dog" / "dog0.png", labels({1: HALF, 7: (0, 40, 8, 48)}))
    with pytest.raises(DatasetError, match=r"dog0\.png: the labels 1 and 7 in masks of one class"):
        load_dataset("folder", root).truth("dog/dog0")


def test_pictures_alone_in_a_class_folder_are_listed(tmp_path):
    root = make_class_folders(tmp_path, {"cat": 2})
    (root / "cat" / "cat0.png").unlink()
    save_picture(root / "cat" / "x.png")
    save(root / "cat" / "x_mask.png", labels({255: HALF}))
    dataset = load_dataset("folder", root)
    assert dataset.ids() == ("cat/cat1", "cat/x")
    assert dataset.problems[0].ids == ("cat/cat0.jpg",)


def test_more_than_254_classes_have_wider_labels(tmp_path):
    root = make_class_folders(tmp_path, {f"c{n:03}": 1 for n in range(256)})
    dataset = load_dataset("folder", root)
    assert set(np.unique(dataset.truth("c255/c2550"))) == {0, 256}


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no image with a mask here"):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize(("name", "images", "classes"), [("coco-mini", 272, 80), ("wbc", 100, 2), ("crack", 60, 1)])
def test_the_development_folders(shared, name, images, classes):
    dataset = load_dataset("auto", shared / "data" / name)
    assert (dataset.name, len(dataset.ids()), len(dataset.classes)) == (name, images, classes)
    assert dataset.problems == ()
    if name != "coco-mini":
        assert dataset.report().present == classes


def test_all_masks_of_an_image_and_objects_in_them_are_of_its_class(tmp_path):
    first, second = labels({1: (0, 0, 8, 8)}), labels({3: (0, 40, 8, 48), 4: (8, 40, 16, 48), 255: (60, 60, 64, 64)})
    root = make_class_folders(tmp_path, {"cat": 1, "dog": 1})
    (root / "dog" / "dog0.png").unlink()
    save(root / "dog" / "dog0_mask.png", first)
    save(root / "dog" / "dog0_mask_1.png", second, palette=False)
    with pytest.raises(DatasetError, match=r"dog0_mask_1\.png: the labels 3 and 4 in masks of one class"):
        load_dataset("folder", root).truth("dog/dog0")
    save_picture(root / "dog" / "x.jpg")
    save(root / "dog" / "x_mask.png", labels({1: (0, 0, 4, 4), 2: (8, 8, 12, 12), 3: (20, 20, 24, 24)}), palette=False)
    dataset = load_dataset("folder", root)
    expected = np.where(second == 255, 255, np.where((first > 0) | (second > 0), 2, 0))
    assert np.array_equal(dataset.truth("dog/dog0"), expected) and dataset.problems == ()
    assert (dataset.truth("dog/x") == 2).sum() == 48


def test_numbers_in_masks_of_one_class_and_a_mask_each_are_objects(tmp_path):
    boxes = {1: (0, 0, 4, 4), 2: (8, 8, 12, 12), 3: (20, 20, 24, 24)}
    root = make_class_folders(tmp_path, {"cell": 1})
    (root / "cell" / "cell0.png").unlink()
    for name, count in (("a", 3), ("b", 1)):
        save_picture(root / "cell" / f"{name}.jpg")
        save(root / "cell" / f"{name}_labels.png", labels({n: boxes[n] for n in range(1, count + 1)}), palette=False)
    for n, (x0, y0, x1, y1) in boxes.items():
        save(root / "cell" / f"cell0_mask_{n}.png", labels({255: (x0, y0, x1, y1)}))
    dataset = load_dataset("folder", root)
    assert np.array_equal(dataset.objects("cell/a"), labels(boxes))
    assert np.array_equal(dataset.objects("cell/b"), labels({1: boxes[1]}))
    assert np.array_equal(dataset.objects("cell/cell0"), labels(boxes))
    assert (dataset.truth("cell/cell0") > 0).sum() == 48


def test_masks_that_only_say_where_a_class_is_tell_no_objects_apart(tmp_path):
    dataset = load_dataset("folder", make_class_folders(tmp_path / "a", {"cat": 2}))
    with pytest.raises(DatasetError, match=r"cat0\.png: tells no objects apart; give each a number"):
        dataset.objects("cat/cat0")
    index = load_dataset("folder", make_index_masks(tmp_path / "b", {"a": labels({1: HALF})}, TWO))
    with pytest.raises(DatasetError, match=r"a\.png: tells no objects apart.*\(--instances\)"):
        index.check_objects(index.ids())
