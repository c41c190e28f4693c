"""Heads learn from drawn pictures what belongs together and what an object is, over several backbones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from typer.testing import CliRunner

from kshot.backbones.base import load_backbone
from kshot.cli import app
from kshot.features import extract
from kshot.io.images import read_image
from kshot.ops.geometry import Frame, to_grid
from kshot.training import log
from kshot.training.cells import Seen, View
from kshot.training.heads import LearnHeads
from kshot.training.trainer import Schedule, train
from kshot.training.unlabelled import Photos, find_photos, to_pixels
from tests.support import with_heads
from tests.support.drawing import draw


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve square pictures of a red disc on green, and below "masks" where it is."""
    folder = tmp_path_factory.mktemp("discs")
    (folder / "photos" / "sub").mkdir(parents=True)
    (folder / "masks" / "sub").mkdir(parents=True)
    for seed in range(12):
        picture, mask = draw(seed, (96, 96))
        name = f"sub/{seed}" if seed % 3 == 0 else str(seed)
        Image.fromarray(picture).save(folder / "photos" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{name}.png")
    return folder


def seen_by(photos: Path, out: Path, name: str, teacher: str | None = None, masks: bool = False) -> Seen:
    """Cells of the pictures, the one that is held out first."""
    split = Photos.split(find_photos(photos / "photos"))
    view = View(96, str(photos / "masks") if masks else "")
    guide = load_backbone(teacher, device="cpu") if teacher else None
    backbone = load_backbone(name, device="cpu")
    return Seen(backbone, guide, photos / "photos", (*split.held, *split.learned), view, out)


def test_cells_are_the_backbones_own_and_kept(photos: Path, tmp_path: Path) -> None:
    name = with_heads.make(tmp_path / "model")
    seen = seen_by(photos, tmp_path / "cells", name, masks=True)
    cells = seen(3)
    picture = read_image(seen.photos[3])
    plain = load_backbone(name, device="cpu", layers=("v4",))
    pixels = to_pixels([Image.fromarray(picture)], plain.spec.mean_rgb, plain.spec.std_rgb)
    values, _, inner = plain.encode_inner(pixels)
    torch.testing.assert_close(cells.inner, inner[0], atol=4e-3, rtol=2e-3)
    torch.testing.assert_close(cells.values, F.normalize(values[0], dim=0), atol=2e-3, rtol=2e-3)
    path = photos / "masks" / seen.photos[3].relative_to(photos / "photos")
    mask = torch.from_numpy((np.asarray(Image.open(path)) > 0).astype(np.float32))
    torch.testing.assert_close(cells.objects, to_grid(mask, Frame((96, 96), (96, 96), 8)), atol=1e-3, rtol=1e-3)
    again = seen_by(photos, tmp_path / "cells", name, masks=True)
    assert again.kept["known"].tolist() == [n == 3 for n in range(12)]
    assert all(torch.equal(one, other) for one, other in zip(cells, again(3), strict=True))
    other = seen_by(photos, tmp_path / "cells", name)
    assert other.kept["known"].sum() == 0


def test_a_teacher_of_another_patch_sees_the_same_cells(photos: Path, tmp_path: Path) -> None:
    name = with_heads.make(tmp_path / "model")
    seen = seen_by(photos, tmp_path / "cells", "toy", teacher=name)
    values, inner, objects = seen(0).values, seen(0).inner, seen(0).objects
    assert values.shape == (32, 12, 12) and inner.shape[1:] == (12, 12)
    assert float(objects.min()) >= 0 and float(objects.max()) == 1


def test_heads_tell_discs_from_ground(photos: Path, tmp_path: Path) -> None:
    """With masks as targets; affinities follow the teacher's, whose discs and grounds are two kinds of cells."""
    seen = seen_by(photos, tmp_path / "cells", "toy", masks=True)
    job = LearnHeads(seen, 1, torch.device("cpu"), object_share=20.0)
    with torch.no_grad():
        before = job.validate()
    schedule = Schedule(steps=60, batch_size=4, lr=2e-3, weight_decay=0.0, validate_every=20, save_every=60)
    train(job, schedule, tmp_path / "run", {})
    after = [line for line in log.read(tmp_path / "run") if line["kind"] == log.VALIDATION][-1]
    assert after["pairs"] < before["pairs"] and after["objects"] < 0.7 * before["objects"]
    batch = job._stack([seen(0)])
    with torch.no_grad():
        found = job.model.objectness(batch.inner)
    sure = (batch.objects > 0.95) | (batch.objects < 0.05)
    assert float(((found > 0.5) == (batch.objects > 0.5))[sure].float().mean()) > 0.9


def test_alike_pairs_are_those_above_gamma(photos: Path, tmp_path: Path) -> None:
    seen = seen_by(photos, tmp_path / "cells", "toy")
    expected = F.normalize(seen(3).values.flatten(1), dim=0)
    cosines = expected.T @ expected
    for gamma in (-1.0, 0.3, 0.9):
        job = LearnHeads(seen, 1, torch.device("cpu"), gamma=gamma)
        assert torch.equal(job._stack([seen(3)]).alike[0], cosines > gamma)
    assert 0.05 < float((cosines > 0.9).float().mean()) < 0.95


def test_every_photograph_comes_once_before_one_comes_again(photos: Path, tmp_path: Path) -> None:
    seen = seen_by(photos, tmp_path / "cells", "toy")
    job = LearnHeads(seen, 1, torch.device("cpu"))
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
        (["--object-lr", "0"], "--object-lr 0.0"),
        (["--teacher", "nobody"], "no backbone is called 'nobody'"),
    ],
)
def test_wrong_options_are_named(photos: Path, tmp_path: Path, more: list[str], told: str) -> None:
    arguments = ["train", "heads", str(photos / "photos"), "-o", str(tmp_path / "run"), "--backbone", "toy"]
    result = CliRunner().invoke(app, [*arguments, "--size", "96", "--device", "cpu", *more])
    assert result.exit_code == 1 and told in str(result.exception)
