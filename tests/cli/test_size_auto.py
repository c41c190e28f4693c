"""`--size auto`, as a person types it."""

import json
from pathlib import Path

import pytest

import kshot
from kshot.cli import app
from kshot.errors import SettingError
from kshot.evaluation import load_result
from kshot.io.images import read_mask
from tests.support.commands import TOY, run
from tests.support.disc_folders import make_discs
from tests.support.film_folders import make_davis

SMALL = ["--method", "density", "--refiner", "none"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_cracks_are_fitted_and_labelled_at_the_size_that_suits_them(shared: Path) -> None:
    cracks = shared / "data" / "crack"
    names = [path.stem for path in sorted((cracks / "images").iterdir())[:4]]
    pairs = [f"crack={cracks}/images/{name}.jpg:{cracks}/masks/{name}.png" for name in names[:3]]
    supports = [part for pair in pairs for part in ("--support", pair)]
    query = cracks / "images" / f"{names[3]}.jpg"
    fitted = run("fit", *supports, "-o", "crack.kshot", "--size", "auto", "--json")
    facts = json.loads(fitted.stdout)
    task = kshot.load_task("crack.kshot")
    assert task.size_choice is not None and {"432", "640"} <= set(facts["size_choice"]["ious"])
    assert facts["size"] == facts["size_choice"]["size"] == task.feature_spec.size
    assert f"size {facts['size']}: mean IoU of 3 left-out supports" in fitted.stderr and "at 640" in fitted.stderr
    run("predict", "crack.kshot", query, "-o", "out")
    expected = kshot.Segmenter(size=facts["size"]).predict(task, query).filtered(min_area=0)
    found = read_mask(Path(f"out/masks/{names[3]}.png"))
    assert found.any() and (found != expected.mask).mean() < 0.01  # specks alone are left out of a run
    settings = json.loads(Path("out/settings.json").read_text())
    assert settings["size_choice"] == facts["size_choice"] and settings["backbone"]["size"] == facts["size"]


def test_label_says_what_it_chose(support_folder: Path, image_folder: Path) -> None:
    done = run("label", support_folder, image_folder, "-o", "out", "--size", "auto", *SMALL)
    assert "mean IoU of 2 left-out supports" in done.stderr and " at 432" in done.stderr
    assert json.loads(Path("out/settings.json").read_text())["size_choice"]["size"] in (432, 640, 864)


def test_one_support_keeps_the_default_and_says_so(support_folder: Path) -> None:
    (support_folder / "disc" / "2.jpg").unlink()
    (support_folder / "disc" / "2.png").unlink()
    done = run("fit", support_folder, "-o", "t.kshot", "--size", "auto", *SMALL)
    assert "size 432, the default: no other was tried" in done.stderr
    assert kshot.load_task("t.kshot").feature_spec.size == 432


def test_a_backbone_of_many_tokens_keeps_its_size(support_folder: Path) -> None:
    done = run("fit", support_folder, "-o", "t.kshot", "--size", "auto", "--backbone", "toy", *SMALL)
    assert "size 448, the default" in done.stderr and "4,096 patch tokens" in done.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["fit", "support", "-o", "x.kshot", "--add-to", "t.kshot", "--size", "auto"], "this task was fitted at 96"),
        (["serve", "images", "--task", "t.kshot", "--size", "auto"], "this task was fitted at 96"),
        (["serve", "images", "--size", "auto"], "begins without any"),
        (["fit", "support", "-o", "x.kshot", "--size", "big"], "--size big: expected a number of pixels, or auto"),
        (["eval", "davis", "--root", "films", "-o", "x", "--size", "auto"], "its first true mask"),
    ],
)
def test_sizes_that_cannot_be(support_folder: Path, image_folder: Path, more: list[str], told: str) -> None:
    run("fit", support_folder, "-o", "t.kshot", *TOY)
    make_davis(Path("films"), {"one": 3})
    with pytest.raises(SettingError, match=told):
        app(more, standalone_mode=False)
    assert not Path("x.kshot").exists() and not Path("images-kshot").exists()


def test_episodes_choose_their_own_size(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "discs")
    chosen = ["--shot", "2", "--episodes", "2", "--workers", "1", "--cache", tmp_path / "cache", *SMALL]
    run("eval", "folder", "--root", root, "-o", "runs", "--size", "auto", *chosen)
    result = load_result(Path("runs/1way-2shot"))
    assert result.settings["sizes"] == [432, 640, 864] and {row["size"] for row in result.rows} <= {432, 640, 864}
    assert Path("runs/report.html").is_file()
