"""Where labelled images come from, and the batches that episodes are made of."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kshot.backbones import tiny
from kshot.data.base import Dataset, load_dataset
from kshot.errors import DatasetError, SettingError
from kshot.training.mask_sources import Batches, Source, mask_sources

SPEC = tiny.SPECS["tiny"]


def labelled(folder: Path, names: dict[str, int], classes: str = "cat\ndog\ncow\n") -> Dataset:
    """A data set: images by name, each with a square of one class (a grey level of its own) on black."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.txt").write_text(classes)
    for name, label in names.items():
        mask = np.zeros((40, 60), np.uint8)
        mask[10:30, 20:40] = label
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
        Image.fromarray(np.repeat(np.uint8(80 * (mask > 0) * label)[..., None], 3, 2)).save(
            folder / "images" / f"{name}.png"
        )
    return load_dataset("folder", folder)


def numbered(prefix: str, label: int, count: int = 3) -> dict[str, int]:
    return {f"{prefix}_{number}": label for number in range(count)}


def test_a_whole_data_set_is_one_source(tmp_path: Path) -> None:
    data = labelled(tmp_path / "a", numbered("x", 1) | numbered("y", 2, 4) | numbered("z", 3, 2))
    (source,), notes = mask_sources([data])
    assert {c: len(images) for c, images in source.images.items()} == {1: 3, 2: 4}
    assert notes == ("a: left out, with fewer than 3 images: cow (2)",)


def test_partial_labels_stay_among_themselves(tmp_path: Path) -> None:
    data = labelled(tmp_path / "a", numbered("street", 1) | numbered("farm", 3, 4))
    sources, notes = mask_sources([], [data])
    assert [(s.name, list(s.images)) for s in sources] == [("a/farm", [3]), ("a/street", [1])]
    assert "no source has two classes" in notes[-1]
    batches = Batches(sources, SPEC, (32,), seed=0)
    for number in range(12):
        batch = batches(number, 4)
        assert set(batch.labels.unique().tolist()) <= {0, *batch.classes}


def test_novel_classes_are_ignored_and_never_searched_for(tmp_path: Path) -> None:
    data = labelled(tmp_path / "a", numbered("x", 1) | numbered("y", 2))
    sources, _ = mask_sources([data], novel=["dog"])
    assert [list(source.images) for source in sources] == [[1]]
    everything = Source("a", data, {1: data.ids()}, frozenset({2}))
    labels = Batches([everything], SPEC, (64,), seed=0)(0, 6).labels
    assert 2 not in labels.unique().tolist() and 255 in labels.unique().tolist()
    with pytest.raises(SettingError, match="novel classes horse"):
        mask_sources([data], novel=["horse"])


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no class has 3 images"):
        mask_sources([labelled(tmp_path / "a", numbered("x", 1, 2))])


def test_batches_depend_on_their_number_alone(tmp_path: Path) -> None:
    sources, _ = mask_sources([labelled(tmp_path / "a", numbered("x", 1) | numbered("y", 2))])
    one, other = (Batches(sources, SPEC, (32, 48), seed=3) for _ in range(2))
    other(7, 4)
    for number in (5, 2):
        first, second = one(number, 4), other(number, 4)
        assert torch.equal(first.pixels, second.pixels) and torch.equal(first.labels, second.labels)
        assert first.pixels.shape == (4, 3, one.side(number), one.side(number))
    assert {one.side(number) for number in range(12)} == {32, 48}


def test_views_show_their_class_and_masks_move_with_the_image(tmp_path: Path) -> None:
    sources, _ = mask_sources([labelled(tmp_path / "a", numbered("x", 1) | numbered("y", 2))])
    for number in range(8):
        batch = Batches(sources, SPEC, (48,), seed=1)(number, 4)
        for pixels, labels in zip(batch.pixels.mean(1), batch.labels, strict=True):
            assert len(labels.unique()) == 2
            # The square is brighter than the black around it, whatever crop, mirror and colours.
            assert float(pixels[labels > 0].mean()) > float(pixels[labels == 0].mean()) + 0.1


def test_more_classes_and_images_are_drawn_more_often(tmp_path: Path) -> None:
    few = labelled(tmp_path / "few", numbered("x", 1))
    many = labelled(
        tmp_path / "many", {k: v for label in (1, 2, 3) for k, v in numbered(f"n{label}", label, 4).items()}
    )
    one, other = mask_sources([few, many])[0]
    assert one.weight == pytest.approx((1 * 3) ** 0.5) and other.weight == pytest.approx((3 * 12) ** 0.5)


def test_some_batches_show_textures_of_photographs(tmp_path: Path) -> None:
    sources, _ = mask_sources([labelled(tmp_path / "a", numbered("x", 1) | numbered("y", 2))])
    photos = sorted((tmp_path / "a/images").iterdir())
    batches = Batches(sources, SPEC, (32,), seed=0, photos=photos, textures=0.5)
    kinds = [batches(number, 3).objects for number in range(24)]
    assert 6 <= sum(kinds) <= 18
    assert all(Batches(sources, SPEC, (32,), seed=0, textures=0.5)(number, 3).objects for number in range(4))
