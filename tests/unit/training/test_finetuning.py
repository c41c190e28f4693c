"""Fine-tuning of an encoder: it learns to compare, forgets little, and is kept only where nothing watches in vain."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kshot.backbones import tiny
from kshot.backbones.base import load_backbone
from kshot.backbones.tiny import Net
from kshot.data.base import Dataset, load_dataset
from kshot.errors import KshotError, SettingError, TrainingError
from kshot.io.paths import list_images
from kshot.training import finetune
from kshot.training.finetuning import FinetuneLearner, Watch, _before
from kshot.training.mask_sources import Batches, mask_sources
from tests.support.nets import SMALL
from tests.support.photographs import folder_of

FAST: dict[str, Any] = {
    "sides": (48,),
    "steps": 2,
    "batch_size": 3,
    "episodes": 2,
    "validate_every": 1,
    "dtype": "float32",
    "size": 64,
}
FAST |= {"last_blocks": 1}  # the small encoder has two


def stripes(folder: Path, count: int, seed: int) -> Dataset:
    """Images with a square of stripes, upright (class 1) or level (class 2), on noise."""
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.txt").write_text("upright\nlevel\n")
    for number in range(count):
        label = 1 + number % 2
        image = rng.integers(0, 256, (64, 64)).astype(np.uint8)
        top, left = rng.integers(0, 32, 2)
        wave = np.uint8(255 * ((np.arange(32) // 4) % 2))
        image[top : top + 32, left : left + 32] = wave[None] if label == 1 else wave[:, None]
        mask = np.zeros((64, 64), np.uint8)
        mask[top : top + 32, left : left + 32] = label
        Image.fromarray(np.repeat(image[..., None], 3, 2)).save(folder / f"images/{number}.png")
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
    return load_dataset("folder", folder)


@pytest.fixture
def start(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return str(tiny.save(Net(SMALL), tmp_path / "start", {}))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return stripes(tmp_path / "learned", 8, 0)


@pytest.fixture
def check(tmp_path: Path) -> Dataset:
    return stripes(tmp_path / "watching", 6, 1)


def learner(start: str, data: Dataset, check: Dataset, anchor: float = 0.0) -> FinetuneLearner:
    frozen = load_backbone(start, device="cpu")
    assert isinstance(frozen, tiny.Tiny)
    batches = Batches(mask_sources([data])[0], frozen.spec, (48,), 0)
    return FinetuneLearner(frozen, batches, Watch([check], 4, 0, 64, 0.01), anchor, 0.5, (), 0)


def test_the_encoder_learns_and_the_result_is_a_backbone(
    start: str, data: Dataset, check: Dataset, tmp_path: Path
) -> None:
    made = finetune(start, tmp_path / "run", [data], [check], tolerance=1.0, **(FAST | {"last_blocks": 0}))
    assert made.encoder is not None and made.sources == 1
    before, after = load_backbone(start), load_backbone(str(made.encoder))
    assert before.identity != after.identity
    assert set(made.before) == {"watching", "miou"} and made.training.steps == 2
    assert json.loads((tmp_path / "run/result.json").read_text())["kept"] is True


def test_losses_fall(start: str, data: Dataset, check: Dataset) -> None:
    made = learner(start, data, check)
    made.choose_blocks(0)
    optimizer = torch.optim.AdamW(made.model.parameters(), lr=3e-3)
    found = []
    for step in range(30):
        losses = made.losses(made.batch(step, step % 3, 4))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        found.append(float(losses["loss"].detach()))
    assert np.mean(found[-6:]) < 0.9 * np.mean(found[:6])


def test_the_anchor_holds_features(start: str, data: Dataset, check: Dataset) -> None:
    moved = []
    for anchor in (0.0, 100.0):
        made = learner(start, data, check, anchor)
        made.choose_blocks(0)
        optimizer = torch.optim.SGD(made.model.parameters(), lr=0.02)
        for step in range(8):
            optimizer.zero_grad()
            made.losses(made.batch(step, step, 4))["loss"].backward()
            torch.nn.utils.clip_grad_norm_(made.model.parameters(), 1.0)
            optimizer.step()
        moved.append(float(made.losses(made.batch(0, 0, 4))["distance"].detach()))
    assert moved[1] < moved[0]


def test_the_result_lies_between_the_weights(start: str, data: Dataset, check: Dataset) -> None:
    made = learner(start, data, check)
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.add_(1.0)
    mixed, before = made.mixed(), made.frozen.model.state_dict()
    for name, weight in mixed.model.state_dict().items():
        torch.testing.assert_close(weight, before[name] + (1.0 if name.startswith("object.") else 0.5))
    assert mixed.identity not in (made.frozen.identity, made.live.identity)


@pytest.mark.parametrize(("last", "idle"), [(1, {"blocks.0", "patches", "position", "token"}), (0, set())])
def test_only_the_chosen_blocks_learn(start: str, data: Dataset, check: Dataset, last: int, idle: set[str]) -> None:
    made = learner(start, data, check)
    made.choose_blocks(last)
    frozen = {name for name, weight in made.model.named_parameters() if not weight.requires_grad}
    assert {".".join(name.split(".")[:2]) if "blocks" in name else name.split(".")[0] for name in frozen} == idle
    rates = made.lr_multipliers
    assert rates["blocks.0.qkv.weight"] < rates["blocks.1.qkv.weight"] == rates["norm.weight"] == 1
    assert rates["patches.weight"] < rates["blocks.0.qkv.weight"] < 1 < rates["object.weight"]
    with pytest.raises(SettingError, match="has 2 blocks"):
        made.choose_blocks(3)


def test_a_state_that_loses_where_it_is_watched_is_not_kept(
    start: str, data: Dataset, check: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kshot.training.finetuning._miou", lambda *_: next(figures))
    figures = iter([0.5, 0.4, 0.485])
    made = finetune(start, tmp_path / "run", [data], [check], **FAST)
    assert made.encoder is None and not (tmp_path / "run/encoder").exists()
    figures = iter([0.5, 0.4, 0.495, 0.495])
    made = finetune(start, tmp_path / "other", [data], [check], **FAST)
    assert made.encoder is not None and made.training.best_step == 2


def test_a_resumed_run_ends_as_one_without_a_stop(start: str, data: Dataset, check: Dataset, tmp_path: Path) -> None:
    settings = FAST | {"steps": 4, "tolerance": 1.0}
    whole = finetune(start, tmp_path / "whole", [data], [check], **settings)

    def stop(stage: str, done: int, *_: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(start, tmp_path / "cut", [data], [check], **settings, progress=stop)
    resumed = finetune(start, tmp_path / "cut", [data], [check], **settings, resume=True)
    assert whole.encoder is not None and resumed.encoder is not None
    assert load_backbone(str(whole.encoder)).identity == load_backbone(str(resumed.encoder)).identity
    with pytest.raises(TrainingError, match="holds a run already"):
        finetune(start, tmp_path / "cut", [data], [check], **settings)
    torch.manual_seed(1)
    other = str(tiny.save(Net(SMALL), tmp_path / "other", {}))
    with pytest.raises(TrainingError, match="backbone: "):
        finetune(other, tmp_path / "cut", [data], [check], **settings, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sides": (40,)}, "multiples of its patch"),
        ({"batch_size": 1}, "two images"),
        ({"novel": ["cow"]}, "novel classes cow"),
        ({"last_blocks": 9}, "has 2 blocks"),
        ({"mix": 0.0}, "mix 0"),
    ],
)
def test_bad_settings_are_refused(
    changes: dict[str, object], message: str, start: str, data: Dataset, check: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=message):
        finetune(start, tmp_path / "run", [data], [check], **(FAST | changes))


def test_what_is_learned_from_does_not_watch(start: str, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="8 of its images are learned from"):
        finetune(start, tmp_path / "run", [data], [data], **FAST)
    with pytest.raises(SettingError, match="at least one data set that watches"):
        finetune(start, tmp_path / "run", [data], [], **FAST)


def test_encoders_without_weights_are_refused(data: Dataset, check: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="classic: its weights cannot be trained"):
        finetune("classic", tmp_path / "run", [data], [check], **FAST)


def test_photographs_are_seen_beside_the_labelled_images(
    start: str, data: Dataset, check: Dataset, tmp_path: Path
) -> None:
    photos = folder_of(tmp_path / "photos", 3)
    frozen = load_backbone(start)
    assert isinstance(frozen, tiny.Tiny)
    batches = Batches(mask_sources([data])[0], frozen.spec, (48,), 0)
    made = FinetuneLearner(frozen, batches, Watch([check], 2, 0, 64, 0.01), 1.0, 0.5, tuple(list_images(photos)), 2)
    one, other = made.batch(0, 5, 3), made.batch(9, 5, 3)
    assert one.photos is not None and other.photos is not None and torch.equal(one.photos, other.photos)
    assert one.photos.shape == (2, 3, 48, 48)
    assert float(made.losses(one)["distance"].detach()) == pytest.approx(0, abs=1e-5)


def test_a_broken_photograph_is_named(start: str, data: Dataset, check: Dataset, tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", 1)
    (photo,) = list_images(photos)
    photo.write_bytes(b"nothing")
    with pytest.raises(KshotError, match=photo.name):
        finetune(start, tmp_path / "run", [data], [check], photos=photos, **FAST)


def test_the_start_is_measured_once(start: str, data: Dataset, check: Dataset, tmp_path: Path) -> None:
    made = learner(start, data, check)
    first = _before(made, tmp_path, resume=False)
    (tmp_path / "before.json").write_text(json.dumps(dict(first) | {"miou": 0.25}))
    assert _before(made, tmp_path, resume=True)["miou"] == 0.25


def test_two_data_sets_of_one_name_both_watch(check: Dataset) -> None:
    watch = Watch([check, dataclasses.replace(check)], 2, 0, 64, 0.01)
    assert list(watch.checks) == ["watching", "watching 1"]


def test_textures_teach_the_patches_alone(start: str, data: Dataset, check: Dataset) -> None:
    made = learner(start, data, check)
    batch = made.batch(0, 0, 4)
    textures = batch._replace(labelled=batch.labelled._replace(objects=False))
    assert {"token", "objectness"} <= made.losses(batch).keys()
    assert not {"token", "objectness"} & made.losses(textures).keys()


def test_a_fraction_of_textures_is_refused_that_leaves_no_classes(
    start: str, data: Dataset, check: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=r"textures 1\.0"):
        finetune(start, tmp_path / "run", [data], [check], textures=1.0, **FAST)
