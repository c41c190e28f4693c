"""Supports that are seen from near: by every prompt, in evaluation as in use, and in task files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kshot
from kshot.data.base import load_dataset
from kshot.episodes.sampler import Episode
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from kshot.methods.base import Support
from kshot.ops.support_crops import support_windows
from kshot.prompts import labelled_support
from kshot.tasks import load_task
from kshot.types import Shot

BOX = (60, 90, 140, 180)  # rows, then columns


@pytest.fixture(scope="module")
def photo() -> tuple[np.ndarray, np.ndarray]:
    """A picture (240, 320, 3) of noise with a bright object, and its mask."""
    image = np.random.default_rng(0).integers(0, 120, (240, 320, 3)).astype(np.uint8)
    mask = np.zeros((240, 320), bool)
    mask[BOX[0] : BOX[1], BOX[2] : BOX[3]] = True
    image[mask] = (230, 40, 40)
    return image, mask


def same(one: Support, other: Support) -> bool:
    pairs = [(one.features.features, other.features.features), (one.masks, other.masks)]
    return all(torch.equal(first, second) for first, second in [*pairs, (one.valid_mask, other.valid_mask)])


def test_a_crop_is_what_the_part_of_the_image_alone_would_be(
    toy: kshot.Segmenter, photo: tuple[np.ndarray, np.ndarray]
) -> None:
    image, mask = photo
    (support,) = toy.encode([Shot(image, mask=mask, label="box")], ("box",))
    windows = support_windows(mask)
    assert len(windows) == len(support.crops) == 1  # 96 pixels is both the narrow and the wide square
    for window, crop in zip(windows, support.crops, strict=True):
        part = window.of(image)
        alone = labelled_support(window.of(mask.astype(np.uint8)), {1: "box"}, ("box",), toy.features(part), "part")
        assert same(crop, alone)
    whole = labelled_support(mask.astype(np.uint8), {1: "box"}, ("box",), toy.features(image), "whole")
    assert same(support, whole)
    assert float(support.crops[0].masks.sum()) > 2 * float(support.masks.sum())  # more patches show the object


@pytest.mark.parametrize(
    "marks",
    [
        {"boxes": [[140, 60, 180, 90]]},
        {"points": [[160, 75], [150, 70]], "negative_points": [[10, 10], [155, 100]]},
        {"scribbles": [[[145, 75], [175, 75]]], "negative_scribbles": [[[0, 0], [300, 10]]]},
    ],
)
def test_marks_grow_in_a_crop_as_they_do_in_the_image(
    toy: kshot.Segmenter, photo: tuple[np.ndarray, np.ndarray], marks: dict[str, list[object]]
) -> None:
    (support,) = toy.encode([Shot(photo[0], label="box", **marks)], ("box",))
    for crop in support.crops:
        assert 0 < float(crop.masks.mean()) < 1
        assert float(crop.masks.sum()) > float(support.masks.sum())


def test_what_is_seen_whole(toy: kshot.Segmenter, photo: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = photo
    large = np.zeros_like(mask)
    large[5:-5, 5:-5] = True
    shots = [
        Shot(image, label="box"),  # the whole image is the support
        Shot(image[::-1].copy(), mask=large, label="box"),
        Shot(image[:, ::-1].copy(), mask=np.zeros_like(mask), label={}),
    ]
    assert all(not support.crops for support in toy.encode(shots, ("box",)))
    plain = kshot.Segmenter(backbone=toy.backbone, method="density")
    assert all(not support.crops for support in plain.encode([Shot(image, mask=mask, label="box")], ("box",)))


def test_labels_outside_of_a_crop_are_still_checked(toy: kshot.Segmenter, photo: tuple[np.ndarray, np.ndarray]) -> None:
    labels = photo[1].astype(np.uint8)
    labels[-1, -1] = 7
    with pytest.raises(kshot.errors.MaskError, match=r"labels \[7\]"):
        toy.encode([Shot(photo[0], mask=labels, label={1: "box"})], ("box",))


def test_evaluation_sees_supports_as_use_does(
    toy: kshot.Segmenter, photo: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, mask = photo
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for stem, turned in (("a", image), ("b", image[::-1])):
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "images" / f"{stem}.png")
        shown = mask if stem == "a" else mask[::-1]
        Image.fromarray(shown.astype(np.uint8)).save(tmp_path / "masks" / f"{stem}.png")
    (tmp_path / "classes.json").write_text('{"1": "box"}')
    runner = EpisodeRunner(toy, load_dataset("folder", tmp_path), FeatureCache(tmp_path / "cache"))
    for _ in range(2):  # computed, and read again from the cache by another runner
        (found,) = runner.supports(Episode(0, "b", (1,), (("a",),), (True,)))
        (used,) = toy.encode([Shot(image, mask=mask, label="box")], ("box",))
        assert same(found, used) and len(found.crops) == len(used.crops) == 1
        assert same(found.crops[0], used.crops[0])
        runner = EpisodeRunner(toy, runner.data, FeatureCache(tmp_path / "cache"))


def test_crops_travel_with_the_task(toy: kshot.Segmenter, photo: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    image, mask = photo
    task = toy.fit([Shot(image, mask=mask, label="box")])
    read = load_task(task.save(tmp_path / "box.kshot"))
    assert read.digest() == task.digest()
    assert same(read.supports[0].crops[0], task.supports[0].crops[0])
    np.testing.assert_array_equal(toy.predict(read, image).scores, toy.predict(task, image).scores)
    grown = task.with_shots([Shot(image[::-1].copy(), mask=mask[::-1].copy(), label="other")], toy)
    assert [len(crop.masks) for support in grown.supports for crop in support.crops] == [2, 2]
