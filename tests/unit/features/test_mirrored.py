"""The second look at a query: what its mirror image adds, who asks for it; and evaluation sees what predict sees."""

from pathlib import Path

import numpy as np
import pytest
import torch

import kshot
from kshot.backbones.base import load_backbone
from kshot.data.base import load_dataset
from kshot.episodes.sampler import draw_episodes
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache, extract, with_mirror
from kshot.types import Shot
from tests.support.disc_folders import make_discs
from tests.support.drawing import draw


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_image_and_its_mirror_image_are_seen_alike() -> None:
    """At the same size the mean of both is the same from either side, which features themselves are not."""
    toy, image = load_backbone("toy", device="cpu"), picture(96, 96)
    left, right = extract(toy, image, 96), extract(toy, np.ascontiguousarray(image[:, ::-1]), 96)
    seen, turned = (with_mirror(f, toy, p, 96) for f, p in ((left, image), (right, image[:, ::-1])))
    torch.testing.assert_close(seen.features, turned.features.flip(2))


def test_each_cell_is_a_mean_of_unit_length_and_the_rest_stays() -> None:
    toy, image = load_backbone("toy", device="cpu"), picture(70, 101)
    plain = extract(toy, image, 96)
    seen = with_mirror(plain, toy, image, 64)
    torch.testing.assert_close(seen.features.norm(dim=0), torch.ones(plain.grid_hw))
    assert (seen.frame, seen.identity, seen.token) == (plain.frame, plain.identity, plain.token)
    assert not torch.equal(seen.features, plain.features)
    smallest = with_mirror(plain, toy, image, 1)  # one patch at least: its one cell is added to all
    assert smallest.features.isfinite().all()


def test_a_uniform_image_stays_what_it_is() -> None:
    toy, image = load_backbone("toy", device="cpu"), np.full((64, 96, 3), 90, np.uint8)
    plain = extract(toy, image, 96)
    torch.testing.assert_close(with_mirror(plain, toy, image, 48).features, plain.features, atol=1e-5, rtol=0)


@pytest.fixture
def twice(toy: kshot.Segmenter) -> kshot.Segmenter:
    return kshot.Segmenter(backbone=toy.backbone, size=toy.size, method_settings={"mirror": 0.7})


def test_a_task_looks_twice_when_it_was_told_to(
    toy: kshot.Segmenter, twice: kshot.Segmenter, shots: list[Shot], tmp_path: Path
) -> None:
    image, _ = draw(3)
    plain = toy.features(image)
    task = kshot.load_task(twice.fit(shots).save(tmp_path / "twice.kshot"))
    expected = toy.decide(task, toy.mirrored(plain, image, 0.7), image)
    np.testing.assert_array_equal(toy.predict(task, image).scores, expected.scores)
    for once in (toy, kshot.Segmenter(backbone=toy.backbone, size=toy.size, method="attention")):
        task = once.fit(shots)
        assert task.mirror == 0
        np.testing.assert_array_equal(once.predict(task, image).scores, once.decide(task, plain, image).scores)


def test_evaluation_sees_what_predict_sees(twice: kshot.Segmenter, tmp_path: Path) -> None:
    data = load_dataset("folder", make_discs(tmp_path / "discs"))
    cache = FeatureCache(tmp_path / "cache")
    for again in range(2):
        runner = EpisodeRunner(twice, data, cache)
        episode = draw_episodes(data, "hsnet", 1, 1, 3)[2]
        result = runner.predict(episode)
        predicted = twice.predict(result.task, data.image_path(episode.query))
        np.testing.assert_array_equal(result.prediction.scores, predicted.scores)
        assert runner.forwards == 3  # the support, the query, and its mirror image; then none
        assert again == 0 or cache.hits > 0
