"""What every method promises, on the toy backbone and drawn pictures."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import kshot
from kshot import _plugins
from kshot.errors import BackboneMismatchError
from kshot.ops.geometry import FeatureMap
from kshot.types import Shot
from tests.support.drawing import draw
from tests.support.listings import ADDING, listings

LISTED = "mine.py"  # of docs/adding.md


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each method that can be chosen, or those of --method."""
    if "method" in metafunc.fixturenames:
        metafunc.parametrize("method", metafunc.config.getoption("--method") or [*_plugins.choices("methods"), LISTED])


@pytest.fixture
def segmenter(method: str, sam_folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> kshot.Segmenter:
    settings = {"model": str(sam_folder)} if method == "sam-graph" else {}
    if method == "dense-comparison":
        settings = {"weights": str(request.getfixturevalue("comparison_head"))}
    if method == LISTED:
        path = tmp_path / LISTED
        path.write_text(listings(ADDING)[LISTED])
        method = str(path)
    return kshot.Segmenter(backbone="toy", size=96, method=method, method_settings=settings)


@pytest.fixture
def task(segmenter: kshot.Segmenter, shots: list[Shot]) -> kshot.Task:
    return segmenter.fit(shots)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max((first | second).sum(), 1))


def seen(segmenter: kshot.Segmenter, seed: int) -> tuple[FeatureMap, np.ndarray]:
    """What a task scores: features, and the picture for those methods that look at it."""
    picture, _ = draw(seed)
    return segmenter.features(picture), picture


def two_way_shots() -> list[Shot]:
    """Red discs, and blue discs on the same ground."""
    red, red_mask = draw(1)
    blue, blue_mask = draw(2)
    blue = blue.copy()
    blue[blue_mask] = blue[blue_mask][:, ::-1]
    return [Shot(red, mask=red_mask, label="red"), Shot(blue, mask=blue_mask, label="blue")]


def test_settings_are_a_frozen_dataclass_with_defaults(segmenter: kshot.Segmenter) -> None:
    settings = segmenter.method.Settings()
    assert is_dataclass(settings)
    assert segmenter.method.__doc__ and segmenter.method.Settings.__doc__
    for field in fields(settings):
        with pytest.raises(FrozenInstanceError):
            setattr(settings, field.name, None)


def test_it_finds_the_disc(segmenter: kshot.Segmenter, task: kshot.Task) -> None:
    for seed in (3, 4, 5):
        picture, mask = draw(seed)
        assert iou(segmenter.predict(task, picture).mask == 1, mask) > 0.7


def test_background_logits_are_zero_and_shapes_hold(segmenter: kshot.Segmenter, task: kshot.Task) -> None:
    picture, _ = draw(3)
    features = segmenter.features(picture)
    logits = task.score(features, picture)
    assert tuple(logits.shape) == (2, *features.grid_hw)
    assert torch.equal(logits[0], torch.zeros(features.grid_hw))
    assert torch.isfinite(logits).all()


def test_an_absent_class_gives_an_empty_mask(segmenter: kshot.Segmenter, task: kshot.Task) -> None:
    found = segmenter.predict(task, draw(6, disc=False)[0])
    assert not found.mask.any()
    assert found.present["disc"] < 0.5


def test_the_order_of_supports_does_not_matter(segmenter: kshot.Segmenter, shots: list[Shot]) -> None:
    shown = seen(segmenter, 3)
    forward, backward = segmenter.fit(shots).score(*shown), segmenter.fit(shots[::-1]).score(*shown)
    torch.testing.assert_close(forward, backward, atol=1e-3, rtol=1e-3)


def test_a_saved_task_scores_the_same_bits(segmenter: kshot.Segmenter, task: kshot.Task, tmp_path: Path) -> None:
    shown = seen(segmenter, 3)
    again = kshot.load_task(task.save(tmp_path / "disc.kshot"))
    assert torch.equal(again.score(*shown), task.score(*shown))
    assert (again.classes, again.settings, again.feature_spec) == (task.classes, task.settings, task.feature_spec)
    assert again.digest() == task.digest()


def test_threads_agree_with_one_after_another(segmenter: kshot.Segmenter, task: kshot.Task) -> None:
    shown = [seen(segmenter, seed) for seed in range(3, 9)]
    one_by_one = [task.score(*pair) for pair in shown]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: task.score(*pair), shown))
    assert all(torch.equal(a, b) for a, b in zip(one_by_one, together, strict=True))


def test_classes_are_decided_jointly(segmenter: kshot.Segmenter) -> None:
    task = segmenter.fit(two_way_shots())
    picture, red_mask = draw(7)
    mixed = picture.copy()
    mixed[:, 64:] = picture[:, 64:, ::-1] * (red_mask[:, 64:, None]) + picture[:, 64:] * ~red_mask[:, 64:, None]
    found = segmenter.predict(task, mixed)
    assert task.classes == ("red", "blue")
    assert set(np.unique(found.mask)) <= {0, 1, 2}
    assert np.allclose(found.scores.sum(0), 1, atol=1e-5)
    assert iou(found.mask > 0, red_mask) > 0.6


def test_one_class_is_not_taken_for_the_other(segmenter: kshot.Segmenter) -> None:
    task = segmenter.fit(two_way_shots())
    picture, mask = draw(9)
    found = segmenter.predict(task, picture)
    assert iou(found.mask == 1, mask) > 0.6
    assert (found.mask == 2).mean() < 0.05


def test_more_shots_equal_all_at_once(segmenter: kshot.Segmenter, shots: list[Shot]) -> None:
    shown = seen(segmenter, 3)
    grown = segmenter.fit(shots[:1]).with_shots(shots[1:], segmenter)
    torch.testing.assert_close(grown.score(*shown), segmenter.fit(shots).score(*shown))


def test_a_new_class_joins_an_old_task(segmenter: kshot.Segmenter) -> None:
    red, blue = two_way_shots()
    grown = segmenter.fit([red]).with_shots([blue], segmenter)
    assert grown.classes == ("red", "blue")
    assert all(support.masks.shape[0] == 2 for support in grown.supports)
    assert segmenter.predict(grown, draw(9)[0]).mask.any()


def test_a_support_without_background_works(segmenter: kshot.Segmenter) -> None:
    picture, _ = draw(1)
    task = segmenter.fit([Shot(picture, mask=np.ones(picture.shape[:2], bool), label="all")])
    assert torch.isfinite(task.score(segmenter.features(picture), picture)).all()


def test_an_image_that_shows_no_class_is_background(segmenter: kshot.Segmenter, shots: list[Shot]) -> None:
    blue = two_way_shots()[1].image
    assert isinstance(blue, np.ndarray)
    task = segmenter.fit([*shots, Shot(blue, mask=np.zeros(blue.shape[:2], np.uint8), label={})])
    picture, mask = draw(3)
    assert task.classes == ("disc",)
    assert iou(segmenter.predict(task, picture).mask == 1, mask) > 0.6
    assert not segmenter.predict(task, blue).mask.any()


def test_an_object_of_one_patch_works(segmenter: kshot.Segmenter) -> None:
    picture, _ = draw(1)
    mask = np.zeros(picture.shape[:2], bool)
    mask[40:48, 64:72] = True
    logits = segmenter.fit([Shot(picture, mask=mask, label="dot")]).score(*seen(segmenter, 3))
    assert torch.isfinite(logits).all()


def test_fifty_shots_and_thirty_classes_work(segmenter: kshot.Segmenter) -> None:
    pictures = [draw(seed, (48, 64)) for seed in range(50)]
    shots = [Shot(p, mask=mask, label=f"class {i % 30}") for i, (p, mask) in enumerate(pictures)]
    logits = segmenter.fit(shots).score(*seen(segmenter, 3))
    assert len(logits) == 31
    assert torch.isfinite(logits).all()


def test_features_of_another_backbone_are_refused(task: kshot.Task, shots: list[Shot]) -> None:
    other = kshot.Segmenter(backbone="toy", layers=(1, 2), size=96)
    with pytest.raises(BackboneMismatchError, match="fitted on toy"):
        task.score(other.features(draw(3)[0]))
