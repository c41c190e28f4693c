import numpy as np
import pytest

from kshot.data import voc
from kshot.data.base import load_dataset
from kshot.errors import DatasetError, SettingError
from tests.support.dataset_layouts import HALF, labels, make_voc, save, save_picture, whole_voc


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_voc(tmp_path_factory.mktemp("voc") / "VOCdevkit" / "VOC2012")


@pytest.mark.parametrize("above", [0, 1, 2])
def test_it_is_found_in_the_folder_and_in_those_above_it(whole, above):
    root = [whole, *whole.parents][above]
    dataset = load_dataset("voc", root)
    assert dataset.root == whole
    assert len(dataset.ids("val")) == len(dataset.ids("train")) == 60


def test_folds_are_five_classes_in_a_row(whole):
    dataset = load_dataset("voc", whole, fold=1)
    assert dataset.fold_classes() == (6, 7, 8, 9, 10)
    assert [dataset.classes[c - 1] for c in dataset.fold_classes(0)] == [
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
    ]
    assert set(dataset.base_classes()) == set(range(1, 21)) - {6, 7, 8, 9, 10}
    assert dataset.fold_classes(3) == (16, 17, 18, 19, 20)
    with pytest.raises(SettingError, match=r"folds 0\.\.3, got fold 4"):
        load_dataset("voc", whole, fold=4)


def test_a_pair_needs_2048_pixels(tmp_path):
    enough, short = labels({1: HALF}), labels({1: (0, 0, 63, 32)})
    short[40, :31] = 1
    assert (enough == 1).sum() == 2048 and (short == 1).sum() == 2047
    dataset = load_dataset("voc", make_voc(tmp_path, {"val": {"a": enough, "b": short}}), fold=0)
    assert [tuple(pair) for pair in dataset.pairs()] == [("a", 1, 2048)]
    assert len(dataset.pairs(min_area=1)) == 2


def test_truth_is_the_index_mask_with_255(whole):
    dataset = load_dataset("voc", whole)
    truth = dataset.truth("2007_003000")
    assert np.array_equal(truth, labels({3: HALF, 255: (0, 32, 64, 34), 4: (0, 40, 8, 48)}))
    ways = dataset.way_mask("2007_003000", (4, 7, 3))
    assert np.array_equal(ways, labels({3: HALF, 255: (0, 32, 64, 34), 1: (0, 40, 8, 48)}))
    assert ways.dtype == np.uint8


def test_pairs_are_counted_when_the_set_is_whole(whole, monkeypatch):
    monkeypatch.setattr(voc, "VAL_IMAGES", 60)
    dataset = load_dataset("voc", whole)
    (told,) = dataset.report().shortfalls
    assert "(15, 15, 15, 15) pairs instead of (346, 451, 725, 346)" in told
    monkeypatch.setattr(voc, "FOLD_PAIRS", (15, 15, 15, 15))
    assert dataset.report().shortfalls == ()


def test_fewer_val_images_are_no_benchmark(whole):
    assert load_dataset("voc", whole).report().shortfalls == ("60 of 1449 val images present; not a PASCAL-5i score",)


def test_a_partial_copy_works_and_says_so(tmp_path):
    images = {f"a{c}": labels({c: HALF}) for c in (1, 2, 3, 8, 15)}
    report = load_dataset("voc", make_voc(tmp_path, {"val": images})).report()
    assert report.shortfalls == ("5 of 20 classes present; not a PASCAL-5i score",)
    assert report.present == 5
    assert "  cat: 1 image, 1 pair" in report.lines()
    assert any(line.startswith("absent: boat, bottle") for line in report.lines())


def test_a_list_that_names_absent_files_is_listed_or_stops(tmp_path):
    make_voc(tmp_path, {"val": {"a": labels({1: HALF}), "b": labels({1: HALF}), "c": labels({1: HALF})}})
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    (tmp_path / "SegmentationClass" / "c.png").unlink()
    dataset = load_dataset("voc", tmp_path)
    assert dataset.ids() == ("a",)
    assert [(p.what, p.ids) for p in dataset.problems] == [
        ("images of val.txt without a file or a mask", ("b", "c")),
        ("masks without an image", ("b",)),
    ]
    assert "missing: 2 images of val.txt without a file or a mask: b, c" in dataset.report().lines()
    with pytest.raises(DatasetError, match=r"2 images of val.txt without .*: b, c"):
        load_dataset("voc", tmp_path, strict=True)


def test_augmented_masks_come_first_and_the_others_fill_in(tmp_path):
    make_voc(tmp_path, {"val": {"a": labels({1: HALF}), "b": labels({2: HALF})}})
    save(tmp_path / "SegmentationClassAug" / "a.png", labels({255: HALF}))
    auto, plain = load_dataset("voc", tmp_path), load_dataset("voc", tmp_path, masks="SegmentationClass")
    assert set(np.unique(auto.truth("a"))) == {0, 255}  # a grey 255 is ignore, not a drawn mask
    assert set(np.unique(auto.truth("b"))) == {0, 2}
    assert set(np.unique(plain.truth("a"))) == {0, 1}
    assert auto.layout == "VOC 2012, masks from SegmentationClass and SegmentationClassAug"
    with pytest.raises(SettingError, match="expected masks as auto"):
        load_dataset("voc", tmp_path, masks="Segmentation")


def test_lists_with_paths_are_read(tmp_path):
    make_voc(tmp_path, {"val": {"a": labels({1: HALF})}})
    line = "/JPEGImages/a.jpg /SegmentationClassAug/a.png\n"
    (tmp_path / "ImageSets" / "Segmentation" / "trainaug.txt").write_text(line * 2)
    assert load_dataset("voc", tmp_path).ids("trainaug") == ("a",)


def test_without_lists_every_mask_is_val(tmp_path):
    make_voc(tmp_path, {"val": {"a": labels({1: HALF})}})
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").unlink()
    dataset = load_dataset("voc", tmp_path)
    assert dataset.ids() == ("a",)
    assert "ImageSets/Segmentation is missing" in str(dataset.problems[0])


def test_train_alone_is_tested_on_train(tmp_path):
    dataset = load_dataset("voc", make_voc(tmp_path, {"train": {"a": labels({1: HALF})}}))
    assert dataset.query_split == dataset.support_split == "train"


def test_labels_outside_the_classes_name_the_file(tmp_path):
    dataset = load_dataset("voc", make_voc(tmp_path, {"val": {"a": labels({21: HALF, 77: (0, 50, 2, 52)})}}))
    with pytest.raises(DatasetError, match=r"a\.png: a holds labels outside the class list: \[21, 77\]"):
        dataset.truth("a")


def test_no_voc_here(tmp_path):
    save_picture(tmp_path / "JPEGImages" / "a.jpg")
    with pytest.raises(DatasetError, match=r"no VOC here; looked for voc: JPEGImages/"):
        load_dataset("voc", tmp_path)


def test_the_development_copy(shared, tmp_path):
    dataset = load_dataset("voc", shared / "data" / "VOCdevkit", cache=tmp_path)
    report = dataset.report()
    assert report.splits == {"train": 120, "trainval": 300, "val": 180}
    assert report.shortfalls == (f"{report.present} of 20 classes present; not a PASCAL-5i score",)
    assert not report.problems
    again = load_dataset("voc", shared / "data" / "VOCdevkit", cache=tmp_path)
    assert again.areas() == dataset.areas()


def test_objects_come_from_segmentation_object_where_it_lies(tmp_path):
    classes, objects = labels({1: HALF, 255: (0, 32, 64, 34)}), labels({1: (0, 0, 30, 32), 2: (30, 0, 64, 32)})
    root = make_voc(tmp_path, {"val": {"a": classes, "b": classes}})
    save(root / "SegmentationObject" / "a.png", np.where(classes == 255, np.uint8(255), objects), palette=True)
    dataset = load_dataset("voc", root)
    assert np.array_equal(dataset.objects("a"), objects)
    with pytest.raises(DatasetError, match=r"b\.png: tells no objects apart.*SegmentationObject/"):
        dataset.check_objects(["a", "b"])
