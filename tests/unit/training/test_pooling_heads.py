"""Heads learn from drawn pictures what belongs together and what an object is, over several backbones."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from kshot.training import log
from kshot.training.pooling_heads import HeadsLearner
from kshot.training.schedule import Schedule
from kshot.training.trainer import train
from tests.support.photographs import disc_features, discs


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("discs"))


def test_heads_tell_discs_from_ground(photos: Path, tmp_path: Path) -> None:
    """With masks as targets; affinities follow the teacher's, whose discs and grounds are two kinds of patches."""
    features = disc_features(photos, tmp_path / "features", "toy", masks=True)
    job = HeadsLearner(features, 1, torch.device("cpu"), object_lr_ratio=20.0)
    with torch.no_grad():
        before = job.validate()
    schedule = Schedule(steps=60, batch_size=4, lr=2e-3, weight_decay=0.0, validate_every=20, save_every=60)
    train(job, schedule, tmp_path / "run", {})
    after = [line for line in log.read(tmp_path / "run") if line["kind"] == log.VALIDATION][-1]
    assert after["pairs"] < before["pairs"] and after["objectness"] < 0.7 * before["objectness"]
    batch = job._stack([features(0)])
    with torch.no_grad():
        found = job.model.objectness(batch.inner)
    sure = (batch.objectness > 0.95) | (batch.objectness < 0.05)
    assert float(((found > 0.5) == (batch.objectness > 0.5))[sure].float().mean()) > 0.9


def test_alike_pairs_are_those_above_the_threshold(photos: Path, tmp_path: Path) -> None:
    features = disc_features(photos, tmp_path / "features", "toy")
    expected = F.normalize(features(3).values.flatten(1), dim=0)
    cosines = expected.T @ expected
    for threshold in (-1.0, 0.3, 0.9):
        job = HeadsLearner(features, 1, torch.device("cpu"), affinity_threshold=threshold)
        assert torch.equal(job._stack([features(3)]).alike[0], cosines > threshold)
    assert 0.05 < float((cosines > 0.9).float().mean()) < 0.95


def test_every_photograph_comes_once_before_one_comes_again(photos: Path, tmp_path: Path) -> None:
    features = disc_features(photos, tmp_path / "features", "toy")
    job = HeadsLearner(features, 1, torch.device("cpu"))
    whole = job.batch(0, 0, 11).inner.flatten(1)
    assert len({tuple(row.abs().sort().values[:9].tolist()) for row in whole}) == 11
    parts = torch.cat([job.batch(0, part, 1).inner.flatten(1) for part in range(11)])
    assert torch.equal(parts, whole)
