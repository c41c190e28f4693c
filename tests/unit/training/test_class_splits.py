"""Which classes are base, which novel, and what training gets to see."""

from pathlib import Path

import numpy as np
import pytest

from kshot.data.base import load_dataset
from kshot.errors import DatasetError, SettingError
from kshot.training.class_splits import EpochSampler, base_view, novel_view, split_classes
from tests.support.dataset_layouts import labels, make_index_masks

BOX, CORNER = (0, 0, 32, 32), (40, 40, 60, 60)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Four classes; image `both` shows a base and a novel one."""
    masks = {f"{name}{n}": labels({c: BOX}) for c, name in enumerate(("cat", "dog", "cow", "fox"), 1) for n in range(3)}
    masks["both"] = labels({1: BOX, 4: CORNER})
    return make_index_masks(tmp_path / "pets", masks, {"1": "cat", "2": "dog", "3": "cow", "4": "fox"})


def test_names_every_nth_and_folds(pets: Path) -> None:
    data = load_dataset("folder", pets)
    assert split_classes(data, novel=("fox",)).base == (1, 2, 3)
    assert split_classes(data, every=2, offset=1).novel == (2, 4)
    assert split_classes(data, base=("dog",), novel=("fox",)).base == (2,)


def test_a_class_that_is_both_is_named(pets: Path) -> None:
    data = load_dataset("folder", pets)
    with pytest.raises(SettingError, match="fox: base and novel at once"):
        split_classes(data, base=("cat", "fox"), novel=("fox",))
    with pytest.raises(SettingError, match="no class wolf"):
        split_classes(data, novel=("wolf",))
    with pytest.raises(SettingError, match="which classes are novel"):
        split_classes(data)
    with pytest.raises(SettingError, match="--novel-offset below N"):
        split_classes(data, every=2, offset=2)
    with pytest.raises(SettingError, match="not both"):
        split_classes(data, novel=("fox",), every=2)


def test_images_that_are_validated_on_are_not_trained_on(pets: Path) -> None:
    data = load_dataset("folder", pets)
    split = split_classes(data, novel=("fox",))
    view, left = base_view(data, split, "all", 1)
    assert left == () and "both" not in view.ids() and not any(name.startswith("fox") for name in view.ids())
    assert {pair.image for pair in novel_view(data, split).pairs()}.isdisjoint(view.ids())
    assert {pair.class_id for pair in view.pairs()} == {1, 2, 3}


def test_novel_pixels_of_other_images_are_ignored(pets: Path) -> None:
    (pets / "train.txt").write_text("cat0\ncat1\ndog0\ndog1\nboth\n")
    (pets / "val.txt").write_text("fox0\nfox1\n")
    data = load_dataset("folder", pets)
    view, left = base_view(data, split_classes(data, novel=("fox",)), "train", 1)
    assert "both" in view.ids() and left == ("cow (0)",)
    before, after = data.truth("both"), view.truth("both")
    assert (after[before == 4] == 255).all() and np.array_equal(after[before != 4], before[before != 4])


def test_too_few_images_are_told(pets: Path) -> None:
    data = load_dataset("folder", pets)
    with pytest.raises(DatasetError, match="no base class has the 11 images that 10-shot needs"):
        base_view(data, split_classes(data, novel=("fox",)), "all", 10)


def test_an_epoch_shows_every_pair_once_and_is_pure(pets: Path) -> None:
    data = load_dataset("folder", pets)
    view, _ = base_view(data, split_classes(data, novel=("fox",)), "all", 1)
    sampler = EpochSampler.of(view, "hsnet", 1, 1, 0)
    pairs = {(pair.image, pair.class_id) for pair in view.pairs()}
    for epoch in range(3):
        numbers = range(epoch * len(pairs), (epoch + 1) * len(pairs))
        assert {(sampler[n].query, sampler[n].classes[0]) for n in numbers} == pairs
    first, second = ([sampler[n].query for n in range(e * len(pairs), (e + 1) * len(pairs))] for e in (0, 1))
    assert first != second
    again = EpochSampler.of(view, "hsnet", 1, 1, 0)
    assert [again[n] for n in (7, 3, 12)] == [sampler[n] for n in (7, 3, 12)]
    assert all(sampler[n].query not in sampler[n].supports[0] for n in range(30))
