"""`kshot train distill` as a person types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kshot
from kshot.cli import app
from kshot.errors import SettingError, TrainingError
from tests.support.drawing import draw
from tests.support.photographs import folder_of

SMALL = [
    *("--teacher", "toy", "--views", "1", "--grid", "6", "--dim", "12"),
    *("--start", "random", "--width", "64", "--blocks", "1"),
    *("--sides", "32,48", "--epochs", "2", "--batch-size", "2", "--dtype", "float32", "--device", "cpu"),
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "photos", 8)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["train", "distill", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_photographs_become_a_backbone(photos: Path, tmp_path: Path) -> None:
    told = json.loads(run(str(photos), "-o", str(tmp_path / "run"), *SMALL, "--json"))
    assert told["steps"] == 7 and Path(told["report"]).is_file()
    segmenter = kshot.Segmenter(backbone=told["encoder"], size=96, device="cpu")
    picture, mask = draw(1)
    task = segmenter.fit([kshot.Shot(picture, mask=mask, label="disc")])
    assert segmenter.predict(task, draw(2)[0]).mask.shape == (96, 128)
    config = json.loads((Path(told["encoder"]) / "config.json").read_text())
    assert config["teachers"] == ["toy"] and config["stretched"] > 0


def test_a_finished_run_is_not_run_over(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    run(str(photos), "-o", out, *SMALL)
    with pytest.raises(TrainingError, match="--resume"):
        run(str(photos), "-o", out, *SMALL)
    before = (tmp_path / "run" / "encoder" / "model.safetensors").read_bytes()
    run(str(photos), "-o", out, *SMALL, "--resume")
    assert (tmp_path / "run" / "encoder" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("sides", ["large", "100", "16"])
def test_sides_that_fit_no_grid_are_refused(photos: Path, tmp_path: Path, sides: str) -> None:
    with pytest.raises(SettingError, match="sides"):
        run(str(photos), "-o", str(tmp_path / "run"), *SMALL, "--sides", sides)


def test_what_would_be_missed_silently_is_refused(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    with pytest.raises(TrainingError, match="no such folder of masks"):
        run(str(photos), "-o", out, *SMALL, "--masks", str(tmp_path / "nowhere"))
    with pytest.raises(SettingError, match="width 200"):
        run(str(photos), "-o", out, *SMALL, "--width", "200")
    run(str(photos), "-o", out, *SMALL)
    with pytest.raises(TrainingError, match="teachers"):  # another teacher is another run
        run(str(photos), "-o", out, *SMALL, "--resume", "--teacher", "classic")
