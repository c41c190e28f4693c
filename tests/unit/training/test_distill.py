"""Targets of teachers, and a small encoder that learns them."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kshot.backbones.base import load_backbone
from kshot.backbones.tiny import Net
from kshot.errors import OutputError
from kshot.io.images import read_image
from kshot.training import distill, teacher_features
from kshot.training.trainer import Schedule, train
from kshot.training.unlabelled import cut, find_photos, to_pixels
from tests.support.nets import SMALL
from tests.support.photographs import folder_of

PLAN = teacher_features.Plan(grid=6, views=2, dim=12)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "photos", 8)


def prepared(photos: Path, plan: teacher_features.Plan = PLAN, count: int = 1, **more: Any) -> teacher_features.Targets:
    toys = [load_backbone("toy", layers=("1",)), load_backbone("toy")][:count]
    return teacher_features.prepare(toys, photos, find_photos(photos), plan, photos.parent / "targets", **more)


def job(photos: Path) -> distill.Distill:
    torch.manual_seed(0)
    settings = distill.Settings(sides=(32, 48))
    return distill.Distill(
        Net(SMALL), find_photos(photos), 2, prepared(photos), PLAN, settings, torch.device("cpu"), 60
    )


@pytest.mark.parametrize("count", [1, 2])
def test_targets_keep_the_mean_cosine_of_the_teachers(photos: Path, count: int) -> None:
    targets = prepared(photos, teacher_features.Plan(grid=6, views=1, dim=16 * count), count)
    paths = find_photos(photos)
    wanted = torch.zeros(36, 36)
    for toy in [load_backbone("toy", layers=("1",)), load_backbone("toy")][:count]:
        picture = read_image(paths[3])
        seen = toy.encode(to_pixels([cut(picture, (0, 0, 56, 40), 48)], toy.spec.mean_rgb, toy.spec.std_rgb))
        cells = seen.dense[0].flatten(1).T
        wanted += cells @ cells.T / count
    found = torch.from_numpy(targets.dense[3, 0].astype(np.float32))
    torch.testing.assert_close(found @ found.T, wanted, atol=5e-3, rtol=0)
    assert targets.kept == pytest.approx(1.0)


def test_targets_are_made_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.asarray(prepared(photos).dense).copy()
    calls: list[int] = []
    monkeypatch.setattr(teacher_features, "_Seer", lambda *_: calls.append(1))
    assert np.array_equal(prepared(photos).dense, first) and not calls
    with pytest.raises(TypeError):  # another plan: the stand-in is called, and is no Seer
        prepared(photos, teacher_features.Plan(grid=5, views=2, dim=12))


def test_targets_go_on_where_they_were_stopped(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [np.asarray(array).copy() for array in prepared(photos)[:3]]
    (photos.parent / "targets" / "targets.json").unlink()
    monkeypatch.setattr(teacher_features, "_SAVED", 2)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(photos, step=stop)
    seen: list[int] = []
    again = prepared(photos, step=lambda done, total: seen.append(done))
    assert seen == [5, 6, 7, 8]  # the fifth was made, but that was not written down yet
    for made, wanted in zip(again[:3], whole, strict=True):
        assert np.array_equal(made, wanted)


def test_targets_that_do_not_fit_on_the_disk_are_refused_at_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"the targets need 0\.0 GiB there"):
        prepared(photos)


def test_a_mask_tells_the_object(photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    for photo in find_photos(photos):
        left = np.zeros((40, 56), np.uint8)
        left[:, :28] = 1
        path = masks / photo.relative_to(photos).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(left).save(path)
    objects = prepared(photos, masks=masks).objects
    assert np.array_equal(objects, np.broadcast_to([1, 1, 1, 0, 0, 0], objects.shape))


def test_each_photograph_comes_once_before_one_comes_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, drawn = job(photos), []
    example = made._example
    monkeypatch.setattr(made, "_example", lambda photo, *rest: drawn.append(photo) or example(photo, *rest))
    for step in range(2):
        made.batch(step, step, 6)
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == [2, 3, 4, 5, 6, 7]


def test_batches_are_pure(photos: Path) -> None:
    made = job(photos)
    for one, other in zip(made.batch(3, 3, 4), made.batch(3, 3, 4), strict=True):
        assert torch.equal(one, other)


def test_a_mirrored_view_has_mirrored_targets(photos: Path) -> None:
    """The picture's left half is black: wherever it lies after chance, its target is the one of black cells."""
    split = np.zeros((48, 48, 3), np.uint8)
    split[:, 24:] = 255
    for path in find_photos(photos):
        Image.fromarray(split).save(path)
    made = job(photos)
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
    made = job(photos)
    with torch.no_grad():
        before = {name: float(value) for name, value in made.validate().items()}
    train(
        made,
        Schedule(steps=60, batch_size=6, lr=3e-3, orthogonal=5.0, validate_every=60, save_every=60),
        tmp_path / "run",
        {},
    )
    with torch.no_grad():
        after = made.validate()
    assert after["cells"] < 0.7 * before["cells"] and after["objects"] < before["objects"]


def test_matched_cells_differ_as_much_as_the_teachers(photos: Path) -> None:
    made = job(photos)
    made.match_spread()
    rows = []
    with torch.no_grad():
        for batch in made._held():
            out = made.model(batch.pixels)
            found = distill._to_grid(out.dense, PLAN.grid)
            rows.append([each.flatten(2).transpose(1, 2).flatten(0, 1) for each in (found, batch.dense)])
    found, wanted = (torch.cat(each) for each in zip(*rows, strict=True))
    torch.testing.assert_close(found.mean(0), wanted.mean(0), atol=1e-3, rtol=1e-3)
    assert float(found.var(0).sum()) == pytest.approx(float(wanted.var(0).sum()), rel=1e-3)
