"""`kshot train finetune` as a person types it."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import kshot
from kshot.backbones import tiny
from kshot.backbones.tiny import Net
from kshot.cli import app
from kshot.errors import SettingError, TrainingError
from tests.support.disc_episodes import make_colours
from tests.support.drawing import draw
from tests.support.nets import SMALL

FAST = [
    *("--sides", "48", "--steps", "2", "--batch-size", "2", "--episodes", "2", "--validate-every", "1"),
    *("--last-blocks", "1", "--size", "64", "--dtype", "float32", "--tolerance", "1", "--device", "cpu"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, seed in (("pets", 3), ("cells", 4)):
        make_colours(tmp_path / name, seed)
    torch.manual_seed(0)
    tiny.save(Net(SMALL), tmp_path / "start", {})
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    words = ["train", "finetune", "--masks", "pets", "--check", "cells", "--backbone", "start", *FAST, *arguments]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def test_masks_become_a_backbone(place: Path) -> None:
    told = json.loads(run("-o", "run", "--json"))
    assert told["steps"] == 2 and Path(told["report"]).is_file() and set(told["before"]) == {"cells", "miou"}
    segmenter = kshot.Segmenter(backbone=told["encoder"], size=96, device="cpu")
    picture, mask = draw(1)
    task = segmenter.fit([kshot.Shot(picture, mask=mask, label="disc")])
    assert segmenter.predict(task, draw(2)[0]).mask.shape == (96, 128)


def test_it_says_what_every_check_gained(place: Path) -> None:
    told = run("-o", "run", "--novel", "red")
    assert "cells: " in told and " -> " in told and "use it with --backbone run/encoder" in told


def test_a_finished_run_is_not_run_over(place: Path) -> None:
    run("-o", "run")
    with pytest.raises(TrainingError, match="--resume"):
        run("-o", "run")
    before = (place / "run/encoder/model.safetensors").read_bytes()
    run("-o", "run", "--resume")
    assert (place / "run/encoder/model.safetensors").read_bytes() == before


def test_what_loses_everywhere_ends_with_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([0.5, 0.1, 0.1])
    monkeypatch.setattr("kshot.training.finetuning._miou", lambda *_: next(figures))
    result = run("-o", "run", "--tolerance", "0.01", code=1)
    assert "encoder" not in result and not (place / "run/encoder").exists()


def test_a_vision_transformer_becomes_an_encoder_of_our_own(place: Path) -> None:
    with pytest.raises(SettingError, match="--novel"):
        run("-o", "run", "--novel", ",")
