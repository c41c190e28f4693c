"""Heads learn from drawn pictures what belongs together and what an object is, over several backbones."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from kshot.backbones.base import load_backbone
from kshot.cli import app
from kshot.features import extract
from kshot.training import log
from kshot.training.pooling_heads import HeadsLearner
from kshot.training.schedule import Schedule
from kshot.training.trainer import train
from tests.support.drawing import draw
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


def test_the_command_makes_a_backbone_that_labels(photos: Path, tmp_path: Path) -> None:
    arguments = ["train", "heads", str(photos / "photos"), "-o", str(tmp_path / "run"), "--backbone", "toy"]
    arguments += ["--size", "96", "--steps", "4", "--batch-size", "3", "--validate-every", "2", "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    facts = json.loads(result.stdout)
    assert facts["steps"] == 4 and Path(facts["report"]).is_file()
    made = load_backbone(facts["backbone"], device="cpu")
    found = extract(made, draw(3)[0], 96)
    assert found.objectness is not None and found.objectness.shape == found.grid_hw
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1 and "a run lies here already" in str(again.exception)
    resumed = CliRunner().invoke(app, [*arguments, "--resume"])
    assert resumed.exit_code == 0 and "on 1 held-out" in resumed.stdout


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--size", "4"], "smaller than one patch"),
        (["--masks", "nowhere"], "nowhere: no such folder of masks"),
        (["--object-lr", "0"], "object_lr 0.0"),
        (["--teacher", "nobody"], "no backbone is called 'nobody'"),
    ],
)
def test_wrong_options_are_named(photos: Path, tmp_path: Path, more: list[str], told: str) -> None:
    arguments = ["train", "heads", str(photos / "photos"), "-o", str(tmp_path / "run"), "--backbone", "toy"]
    result = CliRunner().invoke(app, [*arguments, "--size", "96", "--device", "cpu", *more])
    assert result.exit_code == 1 and told in str(result.exception)
