import numpy as np
import pytest
from PIL import Image

from kshot.data.base import load_dataset
from kshot.episodes.sampler import draw_episodes
from kshot.errors import DatasetError
from tests.support.dataset_layouts import HALF, labels, make_class_folders, make_fss, save, save_picture


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = make_fss(tmp_path_factory.mktemp("fss") / "fss", 1000, area=(0, 0, 8, 4), side=16)
    names = [f"class_{c:04}" for c in range(1000)]
    for split, part in (("train", names[:520]), ("val", names[520:760]), ("test", names[760:])):
        (root / f"fss_{split}.txt").write_text("\n".join(reversed(part)) + "\n")
    return load_dataset("fss1000", root)


def test_the_whole_layout(dataset):
    assert {name: len(ids) for name, ids in dataset.splits.items()} == {"train": 5200, "val": 2400, "test": 2400}
    assert dataset.report().shortfalls == () and dataset.report().problems == ()
    found = draw_episodes(dataset, "hsnet", shot=5)
    assert len(found) == 2400
    assert sorted(episode.query for episode in found) == sorted(dataset.ids("test"))
    assert found[0].query == "class_0760/1" and found[9].query == "class_0760/10"


def test_a_thousand_classes_need_wider_labels(dataset):
    truth = dataset.truth("class_0999/3")
    assert truth.dtype == np.uint16 and set(np.unique(truth)) == {0, 1000}
    ways = dataset.way_mask("class_0999/3", (4, 1000))
    assert ways.dtype == np.uint8 and np.array_equal(ways, labels({2: (0, 0, 8, 4)})[:16, :16])
    middle = dataset.way_mask("class_0254/3", (255,))
    assert set(np.unique(middle)) == {0, 1}


def test_the_splits_hold_different_classes(dataset):
    classes = {split: {image.partition("/")[0] for image in ids} for split, ids in dataset.splits.items()}
    assert [len(names) for names in classes.values()] == [520, 240, 240]
    assert len(set.union(*classes.values())) == 1000
    assert {dataset.classes[pair.class_id - 1] for pair in dataset.areas("test")} == classes["test"]


def test_without_lists_the_split_is_fixed_and_not_official(tmp_path):
    root = make_fss(tmp_path / "fss", 25)
    dataset, again = load_dataset("fss1000", root), load_dataset("fss1000", root)
    assert dataset.splits == again.splits
    assert {name: len(ids) for name, ids in dataset.splits.items()} == {"train": 130, "val": 60, "test": 60}
    assert dataset.report().shortfalls == (
        "25 of 1000 classes present, 6 of 240 tested; not an FSS-1000 score",
        "no fss_test.txt: the classes are split by hash; not the official FSS-1000 split",
    )


def test_a_mask_is_cut_at_128(tmp_path):
    dataset = load_dataset("fss1000", make_fss(tmp_path / "fss", 1))
    assert np.array_equal(dataset.truth("class_0000/1"), labels({1: HALF}))  # drawn in 127 and 128


def test_missing_files_and_folders_are_listed_or_stop(tmp_path):
    root = make_fss(tmp_path / "fss", 2)
    (root / "class_0000" / "3.png").unlink()
    (root / "class_0001" / "4.jpg").unlink()
    (root / "fss_test.txt").write_text("class_0000\nclass_0001\ngiraffe\n")
    dataset = load_dataset("fss1000", root)
    assert len(dataset.ids()) == 18
    assert [(p.what, p.ids) for p in dataset.problems] == [
        ("classes of fss_test.txt without a folder", ("giraffe",)),
        ("images without a mask, or masks alone", ("class_0000/3.jpg", "class_0001/4.png")),
    ]
    with pytest.raises(DatasetError, match="giraffe"):
        load_dataset("fss1000", root, strict=True)


def test_a_damaged_mask_is_named(tmp_path):
    root = make_fss(tmp_path / "fss", 1)
    (root / "class_0000" / "1.png").unlink()
    (root / "class_0000" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"1\.png: not a readable mask"):
        load_dataset("fss1000", root).truth("class_0000/1")


def test_a_mask_of_another_size_is_brought_to_its_image_and_said(tmp_path):
    root = make_fss(tmp_path / "fss", 2)
    (root / "fss_test.txt").write_text("class_0000\nclass_0001\n")
    before = load_dataset("fss1000", root).truth("class_0001/8")
    mask = root / "class_0001" / "8.png"
    large = np.asarray(Image.open(mask)).repeat(2, axis=0).repeat(2, axis=1)
    mask.unlink()  # a link that all classes share
    save(mask, large)
    dataset = load_dataset("fss1000", root, strict=True)
    assert np.array_equal(dataset.truth("class_0001/8"), before)
    told = "1 mask of another size than their image, brought to its size (nearest): class_0001/8.png"
    assert dataset.report().shortfalls[-1] == told and told in dataset.report().lines()


def test_extra_jpeg_files_are_counted_and_stop_nothing(tmp_path):
    root = make_fss(tmp_path / "fss", 2)
    for name in ("3.jpeg", "other.jpeg"):
        save_picture(root / "class_0000" / name)
    dataset = load_dataset("auto", root, strict=True)
    assert dataset.family == "fss1000" and len(dataset.samples) == 20
    told = "2 .jpeg files beside the numbered images, not read: class_0000/3.jpeg, class_0000/other.jpeg"
    assert dataset.report().shortfalls[-1] == told


def test_it_is_found_in_its_archive_folder_and_told_from_class_folders(tmp_path):
    make_fss(tmp_path / "a" / "fewshot_data", 2)
    assert load_dataset("auto", tmp_path / "a").family == "fss1000"
    own = make_class_folders(tmp_path / "own", {"cat": 3})
    assert load_dataset("auto", own).family == "folder"
    with pytest.raises(DatasetError, match="no FSS-1000 here"):
        load_dataset("fss1000", own)


def test_numbered_pictures_with_others_are_a_folder_of_ones_own(tmp_path):
    root = make_fss(tmp_path / "fss", 1)
    save_picture(root / "class_0000" / "more.jpg")
    save(root / "class_0000" / "more.png", labels({255: HALF}))
    assert load_dataset("auto", root).family == "folder"
