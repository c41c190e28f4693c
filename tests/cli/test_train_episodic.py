"""`kshot train episodic`, as a person types it, up to figures of what was learned."""

import json
from pathlib import Path

import pytest

import kshot
from kshot.cli import app
from kshot.errors import SettingError, TrainingError, UnknownNameError
from tests.support.commands import TOY, run
from tests.support.disc_episodes import make_colours

TRAIN = ["train", "episodic", "auto", "--device", "cpu", "--cache", "cache", *TOY]
SHORT = ["--epochs", 2, "--episodes-per-epoch", 4, "--validation", 2, "--test", 3, "--novel", "red,blue"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_colours(tmp_path / "colours", 3)


def test_train_then_label_then_compare(root: Path, support_folder: Path, image_folder: Path) -> None:
    found = run(*TRAIN, "--root", root, "-o", "run", *SHORT)
    assert "novel mIoU on 2 validation episodes" in found.stdout and "method.weights=run" in found.stdout
    assert {path.name for path in Path("run").iterdir()} >= {
        "head.safetensors",
        "novel.csv",
        "result.json",
        "log.jsonl",
    }
    chosen = ["--method", "prototype", "--set", "method.weights=run", *TOY]
    run("fit", support_folder, "-o", "disc.kshot", *chosen)
    Path("run/head.safetensors").rename("elsewhere.safetensors")
    run("predict", "disc.kshot", image_folder, "-o", "out")  # the task holds the weights
    assert kshot.load_task("disc.kshot").learned is not None
    Path("elsewhere.safetensors").rename("run/head.safetensors")
    where = ["--root", root, "--episodes-from", "run/novel.csv", "--workers", 1, "--cache", "cache", "--device", "cpu"]
    run("eval", "auto", *where, "--method", "prototype", "-o", "before", *TOY)
    run("eval", "auto", *where, "-o", "after", *chosen)
    assert "95 % interval" in run("compare", "before", "after").stdout
    everything = run("eval", "auto", "--root", root, "--episodes", 12, *where[4:], "-o", "all", *chosen)
    assert "not novel: the weights were learned on black" in everything.stdout


def test_json_resume_and_refusals(root: Path) -> None:
    facts = json.loads(run(*TRAIN, "--root", root, "-o", "run", *SHORT, "--recipe", "quick", "--json").stdout)
    assert facts["epochs"] == 2 and facts["recipe"]["lr"] == 5e-4 and Path(facts["head"]).is_file()
    again = json.loads(
        run(*TRAIN, "--root", root, "-o", "run", *SHORT, "--recipe", "quick", "--resume", "--json").stdout
    )
    assert again["best"] == facts["best"] and again["before"] == facts["before"]
    where = [*TRAIN, "--root", root]
    for error, arguments in (
        (TrainingError, ["-o", "run", *SHORT, "--recipe", "quick"]),
        (SettingError, ["-o", "b", *SHORT, "--base", "red,white"]),
        (SettingError, ["-o", "b", "--novel-every", 1]),
        (SettingError, ["-o", "b", *SHORT, "--augment", "swirl"]),
        (UnknownNameError, ["-o", "b", *SHORT, "--recipe", "slow"]),
        (UnknownNameError, ["-o", "b", *SHORT, "--method", "density"]),
    ):
        result = run(*where, *arguments, code=1)
        assert isinstance(result.exception, error), (arguments, result.exception)


def test_names_come_from_a_file_too(root: Path) -> None:
    Path("novel.txt").write_text("red\nblue\n")
    short = ["novel.txt" if part == "red,blue" else part for part in SHORT]
    run(
        *TRAIN,
        "--root",
        root,
        "-o",
        "run",
        *short,
        "--shot",
        2,
        "--way",
        2,
        "--augment",
        "flip,color-jitter",
        "--variants",
        1,
    )
    assert json.loads(Path("run/training.json").read_text())["novel"] == ["blue", "red"]


def test_help_names_the_presets() -> None:
    assert "seed, quick" in run("train", "episodic", "--help").stdout and app.info.name == "kshot"
