"""`Segmenter(size="auto")`: a task says at which size it was fitted, and everything that predicts with it obeys."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kshot
from kshot.batch import label_folder
from kshot.errors import SettingError
from kshot.io.images import read_mask
from kshot.types import Shot
from tests.support.drawing import draw


@pytest.fixture
def small(toy: kshot.Segmenter) -> kshot.backbones.base.Backbone:  # type: ignore[name-defined]
    """The toy, whose own size is 96."""
    backbone = copy.copy(toy.backbone)
    backbone.spec = replace(backbone.spec, size=96)
    return backbone


def shots_of(*seeds: int) -> list[Shot]:
    return [Shot(picture, mask=mask, label="disc") for picture, mask in map(draw, seeds)]


def test_the_task_says_what_was_tried_and_has_the_size(small, tmp_path: Path) -> None:
    seg = kshot.Segmenter(backbone=small, size="auto")
    task = seg.fit(shots_of(1, 2, 3))
    choice = task.size_choice
    assert choice is not None and choice.seconds is not None
    assert task.feature_spec.size == choice.size and {len(ious) for ious in choice.ious.values()} == {3}
    assert next(iter(choice.ious)) == 96 and set(choice.ious) <= {96, 144, 192}
    again = kshot.load_task(task.save(tmp_path / "t.kshot"))
    assert again.size_choice == choice and again.feature_spec == task.feature_spec
    assert again.digest() == task.digest()


def test_a_left_out_image_helps_nobody_to_find_it(small) -> None:
    picture, mask = draw(3)
    blue = Shot(picture[..., ::-1].copy(), mask=mask, label="disc")  # a blue disc, where the others are red
    choice = kshot.Segmenter(backbone=small, method="density", size="auto").fit([*shots_of(1, 2), blue]).size_choice
    alone = kshot.Segmenter(backbone=small, method="density").fit([blue])
    assert min(choice.ious[96]) < 0.3
    assert (kshot.Segmenter(backbone=small).predict(alone, blue.image).mask == mask).mean() > 0.9


@pytest.mark.parametrize("size", [96, 144])
def test_a_prediction_is_at_the_size_of_the_task(small, size: int) -> None:
    auto, plain = kshot.Segmenter(backbone=small, size="auto"), kshot.Segmenter(backbone=small, size=size)
    task, query = plain.fit(shots_of(1, 2)), draw(5)[0]
    expected = plain.predict(task, query).scores
    assert np.array_equal(auto.predict(task, query).scores, expected)
    assert np.array_equal(next(auto.stream([query], task)).scores, expected)


def test_a_folder_is_labelled_at_the_size_of_the_task(small, image_folder: Path, tmp_path: Path) -> None:
    large = kshot.Segmenter(backbone=small, size=192)
    task = large.fit(shots_of(1, 2))
    label_folder(kshot.Segmenter(backbone=small), task, image_folder, tmp_path / "out", batch=2)
    assert np.array_equal(read_mask(tmp_path / "out/masks/a.png"), large.predict(task, image_folder / "a.jpg").mask)


def test_supports_that_join_a_task_get_its_size(small) -> None:
    task = kshot.Segmenter(backbone=small, size=192).fit(shots_of(1))
    grown = task.with_shots(shots_of(2), kshot.Segmenter(backbone=small, size="auto"))
    assert grown.supports[0].features.grid_hw == grown.supports[1].features.grid_hw


@pytest.mark.parametrize(
    "shots",
    [
        shots_of(1),
        [Shot(draw(seed)[0], boxes=[[20, 20, 60, 60]], label="disc") for seed in (1, 2)],
        [*shots_of(1), Shot(draw(2)[0], mask=draw(3)[1], label="other")],
        [*shots_of(1), Shot(draw(2, disc=False)[0], mask=np.zeros((96, 128), np.uint8), label={})],
    ],
    ids=["one", "boxes", "one each", "one and an empty one"],
)
def test_too_few_masks_keep_the_default(small, shots: list[Shot]) -> None:
    task = kshot.Segmenter(backbone=small, size="auto").fit(shots)
    assert task.feature_spec.size == 96
    assert not task.size_choice.ious and "the default" in str(task.size_choice)


def test_boxes_beside_masks_and_an_unknown_region_do_no_harm(small) -> None:
    (picture, mask), box = draw(2), Shot(draw(4)[0], boxes=[[20, 20, 60, 60]], label="disc")
    labels = mask.astype(np.uint8)
    labels[:10] = 255
    task = kshot.Segmenter(backbone=small, size="auto").fit(
        [*shots_of(1), Shot(picture, mask=labels, label="disc"), box]
    )
    assert len(task.supports) == 3 and len(task.size_choice.ious[96]) == 2


def test_a_task_keeps_its_size(small) -> None:
    task = kshot.Segmenter(backbone=small).fit(shots_of(1))
    with pytest.raises(SettingError, match="fitted at 96"):
        kshot.Segmenter.for_task(task, backbone=small, size="auto")
    with pytest.raises(SettingError, match="expected a number of pixels, or 'auto'"):
        kshot.Segmenter(backbone=small, size="large")
