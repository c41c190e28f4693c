"""What teachers see: targets of distillation and features for heads, computed once and kept on disk."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from kshot.backbones.base import load_backbone
from kshot.errors import OutputError
from kshot.io.images import read_image
from kshot.ops.geometry import Frame, to_grid
from kshot.training.teacher_features import Targets, TargetSettings, TeacherEncoder, distillation_targets
from kshot.training.unlabelled import crop_resize, find_photos, to_pixels
from tests.support import with_heads
from tests.support.photographs import disc_features, discs, folder_of

SETTINGS = TargetSettings(grid=6, views=2, dim=12)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "photos", 8)


@pytest.fixture(scope="module")
def disc_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("discs"))


def prepared(photos: Path, settings: TargetSettings = SETTINGS, count: int = 1, **more: Any) -> Targets:
    toys = [load_backbone("toy", layers=("1",)), load_backbone("toy")][:count]
    return distillation_targets(toys, photos, find_photos(photos)[0], settings, photos.parent / "targets", **more)


@pytest.mark.parametrize("count", [1, 2])
def test_targets_keep_the_mean_cosine_of_the_teachers(photos: Path, count: int) -> None:
    targets = prepared(photos, TargetSettings(grid=6, views=1, dim=16 * count), count)
    paths, _ = find_photos(photos)
    wanted = torch.zeros(36, 36)
    for toy in [load_backbone("toy", layers=("1",)), load_backbone("toy")][:count]:
        image = read_image(paths[3])
        seen = toy.encode(to_pixels([crop_resize(image, (0, 0, 56, 40), 48)], toy.spec.mean_rgb, toy.spec.std_rgb))
        tokens = seen.dense[0].flatten(1).T
        wanted += tokens @ tokens.T / count
    found = torch.from_numpy(targets.dense[3, 0].astype(np.float32))
    torch.testing.assert_close(found @ found.T, wanted, atol=5e-3, rtol=0)
    assert targets.explained_variance == pytest.approx(1.0)


def test_targets_are_made_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.asarray(prepared(photos).dense).copy()
    calls: list[int] = []
    monkeypatch.setattr(TeacherEncoder, "encode", lambda *_: calls.append(1))
    assert np.array_equal(prepared(photos).dense, first) and not calls
    with pytest.raises(TypeError):  # other settings: the stand-in is called, and gives nothing
        prepared(photos, TargetSettings(grid=5, views=2, dim=12))


def test_targets_go_on_where_they_were_stopped(photos: Path) -> None:
    whole = [np.asarray(array).copy() for array in prepared(photos)[:3]]
    (photos.parent / "targets" / "features.json").unlink()

    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(photos, progress=stop)
    seen: list[int] = []
    again = prepared(photos, progress=lambda stage, done, total, figures: seen.append(done))
    assert seen == [6, 7, 8]
    for made, wanted in zip(again[:3], whole, strict=True):
        assert np.array_equal(made, wanted)


def test_targets_that_do_not_fit_on_the_disk_are_refused_at_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"the teachers\' features need 0\.0 GiB there"):
        prepared(photos)


def test_a_mask_tells_the_object(photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    for photo in find_photos(photos)[0]:
        left = np.zeros((40, 56), np.uint8)
        left[:, :28] = 1
        path = masks / photo.relative_to(photos).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(left).save(path)
    found = prepared(photos, masks=masks).objectness
    assert np.array_equal(found, np.broadcast_to([1, 1, 1, 0, 0, 0], found.shape))


def test_features_are_the_backbones_own_and_kept(disc_photos: Path, tmp_path: Path) -> None:
    name = with_heads.make(tmp_path / "model")
    features = disc_features(disc_photos, tmp_path / "features", name, masks=True)
    found = features(3)
    picture = read_image(features.photos[3])
    plain = load_backbone(name, device="cpu", layers=("v4",))
    pixels = to_pixels([Image.fromarray(picture)], plain.spec.mean_rgb, plain.spec.std_rgb)
    values, _, inner = plain.encode_inner(pixels)
    torch.testing.assert_close(found.inner, inner[0], atol=4e-3, rtol=2e-3)
    torch.testing.assert_close(found.values, F.normalize(values[0], dim=0), atol=2e-3, rtol=2e-3)
    path = disc_photos / "masks" / features.photos[3].relative_to(disc_photos / "photos")
    mask = torch.from_numpy((np.asarray(Image.open(path)) > 0).astype(np.float32))
    torch.testing.assert_close(found.objectness, to_grid(mask, Frame((96, 96), (96, 96), 8)), atol=1e-3, rtol=1e-3)
    again = disc_features(disc_photos, tmp_path / "features", name, masks=True)
    assert again.store.done.tolist() == [n == 3 for n in range(12)]
    assert all(torch.equal(one, other) for one, other in zip(found, again(3), strict=True))
    other = disc_features(disc_photos, tmp_path / "features", name)
    assert other.store.done.sum() == 0


def test_a_teacher_of_another_patch_sees_the_same_grid(disc_photos: Path, tmp_path: Path) -> None:
    name = with_heads.make(tmp_path / "model")
    features = disc_features(disc_photos, tmp_path / "features", "toy", teacher=name)
    inner, values, objectness = features(0)
    assert values.shape == (32, 12, 12) and inner.shape[1:] == (12, 12)
    assert float(objectness.min()) >= 0 and float(objectness.max()) == 1
