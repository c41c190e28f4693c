"""`kshot train heads` as a person types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kshot.backbones.base import load_backbone
from kshot.cli import app
from kshot.features import extract
from tests.support.drawing import draw
from tests.support.photographs import discs


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("discs"))


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
