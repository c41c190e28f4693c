import logging
import os

import numpy as np
import pytest

from kshot.data import _areas
from kshot.data.base import Dataset, find_datasets, load_dataset, looks_for, recognise
from kshot.errors import DatasetError, ImageReadError, OutputError, SettingError, UnknownNameError
from tests.support.dataset_layouts import (
    HALF,
    labels,
    make_class_folders,
    make_coco,
    make_fss,
    make_index_masks,
    make_voc,
    save,
)


@pytest.fixture
def pets(tmp_path):
    masks = {name: labels({1: HALF}) for name in "abc"}
    return make_index_masks(tmp_path / "pets", masks, {"1": "cat", "2": "dog"})


def test_every_family_says_what_it_looks_for():
    assert [line.partition(":")[0] for line in looks_for()] == ["coco", "folder", "fss1000", "voc"]


def test_auto_takes_whichever_it_is_and_lists_what_was_looked_for(pets, tmp_path):
    assert load_dataset("auto", pets).family == "folder"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"(?s)no data set was recognised; looked for.*annotations/.*JPEGImages"):
        load_dataset("auto", tmp_path / "empty", cache=None)


def test_auto_asks_when_there_are_two(pets):
    make_voc(pets, {"val": {"a": labels({1: HALF})}})
    with pytest.raises(DatasetError, match="looks like folder and like voc; say which"):
        load_dataset("auto", pets)


def test_unknown_names_and_folders(pets, tmp_path):
    with pytest.raises(UnknownNameError, match=r"no dataset is called 'vco'\. Did you mean 'voc'"):
        load_dataset("vco", pets)
    with pytest.raises(UnknownNameError, match="'base'"):
        load_dataset("base", pets)
    with pytest.raises(DatasetError, match="no such folder; check the path"):
        load_dataset("voc", tmp_path / "nowhere")


def test_everything_under_a_root_is_found_once(pets, tmp_path):
    voc = make_voc(tmp_path / "VOCdevkit" / "VOC2012", {"val": {"a": labels({1: HALF})}})
    coco = make_coco(tmp_path / "deep" / "coco", "val", 2014, {1: []})
    fss = make_fss(tmp_path / "fss", 1)
    own = make_class_folders(tmp_path / "own", {"cat": 1})
    found = find_datasets(tmp_path)
    assert sorted(found) == sorted([("voc", voc), ("coco", coco), ("fss1000", fss), ("folder", own), ("folder", pets)])
    assert find_datasets(tmp_path, depth=0) == [("voc", voc)]
    assert recognise(coco) == ["coco"] and find_datasets(tmp_path / "nowhere") == []


def test_unknown_images_and_splits(pets):
    dataset = load_dataset("folder", pets)
    with pytest.raises(DatasetError, match="no image 'x' among its 3"):
        dataset.truth("x")
    with pytest.raises(DatasetError, match="no split 'val'; it has all"):
        dataset.ids("val")
    with pytest.raises(SettingError, match="pets has no folds, got fold 0"):
        load_dataset("folder", pets, fold=0)


def test_the_digest_follows_names_and_ids(pets):
    before = load_dataset("folder", pets).digest()
    assert before == load_dataset("folder", pets).digest()
    save(pets / "images" / "d.png", labels({}))
    save(pets / "masks" / "d.png", labels({}))
    assert load_dataset("folder", pets).digest() != before


def test_areas_are_cached_outside_and_read_back(pets, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = load_dataset("folder", pets, cache=cache).areas()
    (path,) = cache.iterdir()
    monkeypatch.setattr(Dataset, "_count_areas", None)
    assert load_dataset("folder", pets, cache=cache).areas() == first
    monkeypatch.undo()
    path.write_text(path.read_text()[:-9])
    assert load_dataset("folder", pets, cache=cache).areas() == first
    assert path.read_text().endswith("end,3,\n") or path.read_text().endswith("end,3,\r\n")


def test_a_changed_mask_is_read_again(pets, tmp_path):
    cache = tmp_path / "cache"
    load_dataset("folder", pets, cache=cache).areas()
    save(pets / "masks" / "a.png", labels({2: HALF}))
    os.utime(pets / "masks" / "a.png", ns=(1, 1))
    assert {pair.class_id for pair in load_dataset("folder", pets, cache=cache).areas()} == {1, 2}


def test_a_mask_that_went_away_is_named(pets, tmp_path):
    dataset = load_dataset("folder", pets, cache=tmp_path / "cache")
    (pets / "masks" / "a.png").unlink()
    with pytest.raises(ImageReadError, match=r"a\.png: no such file"):
        dataset.areas()


def test_a_cache_inside_the_data_set_is_refused(pets):
    with pytest.raises(SettingError, match="lies inside the data set"):
        load_dataset("folder", pets, cache=pets / "cache")


def test_a_full_disk_costs_one_warning(pets, tmp_path, monkeypatch, caplog):
    def full(path, text):
        raise OutputError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr(_areas, "write_text", full)
    _areas.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(load_dataset("folder", pets, cache=tmp_path / "full").areas()) == 3
    assert [record.message.count("No space left") for record in caplog.records] == [1]


def test_a_read_only_data_set_is_no_hindrance(pets, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in pets.rglob("*")}
    for folder in (pets, pets / "masks", pets / "images"):
        folder.chmod(0o555)
    try:
        assert len(load_dataset("folder", pets, cache=tmp_path / "cache").areas()) == 3
    finally:
        for folder in (pets, pets / "masks", pets / "images"):
            folder.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in pets.rglob("*")} == before


def test_way_masks_number_the_classes_in_their_order(pets):
    save(pets / "masks" / "a.png", labels({1: HALF, 2: (0, 40, 8, 48), 255: (50, 50, 60, 60)}))
    found = load_dataset("folder", pets).way_mask("a", (2,))
    assert np.array_equal(found, labels({1: (0, 40, 8, 48), 255: (50, 50, 60, 60)}))
