"""A small encoder learns the targets of its teachers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kshot.backbones.base import load_backbone
from kshot.backbones.tiny import Net
from kshot.training import distillation
from kshot.training.distillation import DistillationLearner
from kshot.training.schedule import Schedule
from kshot.training.teacher_features import TargetSettings, distillation_targets
from kshot.training.trainer import train
from kshot.training.unlabelled import find_photos
from tests.support.nets import SMALL
from tests.support.photographs import folder_of

SETTINGS = TargetSettings(grid=6, views=2, dim=12)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "photos", 8)


def learner(photos: Path) -> DistillationLearner:
    found, _ = find_photos(photos)
    toy = load_backbone("toy", layers=("1",))
    targets = distillation_targets([toy], photos, found, SETTINGS, photos.parent / "targets")
    torch.manual_seed(0)
    return DistillationLearner(Net(SMALL), found, 2, targets, SETTINGS, (32, 48), torch.device("cpu"), 60)


def test_each_photograph_comes_once_before_one_comes_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, drawn = learner(photos), []
    example = made._example
    monkeypatch.setattr(made, "_example", lambda photo, *rest: drawn.append(photo) or example(photo, *rest))
    for step in range(2):
        made.batch(step, step, 6)
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == [2, 3, 4, 5, 6, 7]


def test_batches_are_pure(photos: Path) -> None:
    made = learner(photos)
    for one, other in zip(made.batch(3, 3, 4), made.batch(3, 3, 4), strict=True):
        assert torch.equal(one, other)


def test_a_mirrored_view_has_mirrored_targets(photos: Path) -> None:
    """The image's left half is black: wherever it lies after mirroring, its target is that of black patches."""
    split = np.zeros((48, 48, 3), np.uint8)
    split[:, 24:] = 255
    for path in find_photos(photos)[0]:
        Image.fromarray(split).save(path)
    made = learner(photos)
    sides = set()
    for step in range(6):
        batch = made.batch(step, step, 6)
        for pixels, dense, whole in zip(batch.pixels, batch.dense, batch.whole, strict=True):
            if whole:
                black = 0 if pixels[:, :, 0].mean() < pixels[:, :, -1].mean() else -1
                sides.add(black)
                other = -1 - black
                like = (dense[:, :, black].mean(1) - batch.dense[0][:, :, 0].mean(1)).norm()
                assert like < 1e-3 or (dense[:, :, other].mean(1) - batch.dense[0][:, :, 0].mean(1)).norm() < 1e-3
                assert (dense[:, :, black] - dense[:, :, other]).norm() > 0.1
    assert sides == {0, -1}


def test_an_encoder_learns_its_teacher(photos: Path, tmp_path: Path) -> None:
    made = learner(photos)
    with torch.no_grad():
        before = {name: float(value) for name, value in made.validate().items()}
    train(
        made,
        Schedule(steps=60, batch_size=6, lr=3e-3, muon_lr_ratio=5.0, validate_every=60, save_every=60),
        tmp_path / "run",
        {},
    )
    with torch.no_grad():
        after = made.validate()
    assert after["patches"] < 0.7 * before["patches"] and after["objectness"] < before["objectness"]


def test_matched_patch_tokens_vary_as_much_as_the_teachers(photos: Path) -> None:
    made = learner(photos)
    made.match_variance()
    rows = []
    with torch.no_grad():
        for batch in made._held_out():
            out = made.model(batch.pixels)
            found = distillation._to_grid(out.dense, SETTINGS.grid)
            rows.append([each.flatten(2).transpose(1, 2).flatten(0, 1) for each in (found, batch.dense)])
    found, wanted = (torch.cat(each) for each in zip(*rows, strict=True))
    torch.testing.assert_close(found.mean(0), wanted.mean(0), atol=1e-3, rtol=1e-3)
    assert float(found.var(0).sum()) == pytest.approx(float(wanted.var(0).sum()), rel=1e-3)
