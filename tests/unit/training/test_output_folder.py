"""A training replaces the files of a training alone, and others only when told so."""

from pathlib import Path

import pytest
from PIL import Image

import kshot
from kshot import training
from kshot.data.base import load_dataset
from kshot.errors import SettingError, TrainingError
from kshot.training.output_folder import OF_A_RUN, check_output
from kshot.training.teacher_features import FeatureStore
from tests.support.commands import run
from tests.support.drawing import draw
from tests.support.files import text
from tests.support.runs import contents
from tests.support.training_jobs import QUICK, Curve, Schedule, train


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        Image.fromarray(draw(seed)[0]).save(folder / f"{seed}.png")
    return folder


@pytest.mark.parametrize(
    "name", ["head.safetensors", "training.json", "encoder/notes.txt", "result.json", "report.html"]
)
def test_files_of_a_person_are_not_replaced_by_any_training(name: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text(out / name, "mine")
    before = contents(out)
    names = {"head.safetensors": "background", "result.json": "episodic"}
    which = names.get(name, "distill")
    commands = {
        "background": ["train", "background", photos, "--backbone", "toy", "-o", out],
        "distill": ["train", "distill", photos, "--teacher", "toy", "-o", out],
    }
    if which in commands:
        refused = run(*commands[which], code=1).exception
    else:
        with pytest.raises(SettingError) as caught:
            check_output(out, [*OF_A_RUN, "head.safetensors", "novel.csv", "result.json"])
        refused = caught.value
    assert isinstance(refused, SettingError) and "no training of kshot made" in str(refused)
    assert name.partition("/")[0] in str(refused) and contents(out) == before


def test_episodic_and_heads_look_first_too(toy: kshot.Segmenter, photos: Path, tmp_path: Path) -> None:
    text(tmp_path / "out/best.safetensors", "mine")
    with pytest.raises(SettingError, match=r"best\.safetensors, which no training"):
        training.heads(photos, tmp_path / "out", backbone="toy")
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for seed in range(4):
        picture, mask = draw(seed)
        Image.fromarray(picture).save(tmp_path / f"data/images/{seed}.png")
        Image.fromarray(mask.astype("uint8") * (1 + seed % 2)).save(tmp_path / f"data/masks/{seed}.png")
    text(tmp_path / "data/classes.json", {"1": "a", "2": "b"})
    segmenter = kshot.Segmenter(backbone="toy", size=96, method="prototype")
    with pytest.raises(SettingError, match=r"best\.safetensors, which no training"):
        training.episodic(segmenter, load_dataset("folder", tmp_path / "data"), tmp_path / "out", novel=["b"])
    assert (tmp_path / "out/best.safetensors").read_text() == "mine"


@pytest.mark.parametrize("name", ["dense.npy", "features.json", "basis.npz"])
def test_a_cache_replaces_nothing_that_no_training_made(name: str, photos: Path, tmp_path: Path) -> None:
    targets = text(tmp_path / "distilled/targets" / name, {"mine": 1})
    with pytest.raises(SettingError, match="targets, which no training of kshot made"):
        training.distill(photos, tmp_path / "distilled", "toy")
    features = text(tmp_path / "heads/features" / name, {"mine": 1})
    with pytest.raises(SettingError, match="features, which no training of kshot made"):
        training.heads(photos, tmp_path / "heads", backbone="toy")
    assert [path.read_text() for path in (targets, features)] == ['{"mine": 1}'] * 2


def test_a_cache_that_a_kill_left_is_gone_on_with(tmp_path: Path) -> None:
    FeatureStore(tmp_path / "targets", {"photos": []}, 2, {"dense": (3,)})
    check_output(tmp_path, OF_A_RUN, stores=["targets"])
    (tmp_path / "targets/features.json").unlink()  # killed before it was written
    check_output(tmp_path, OF_A_RUN, stores=["targets"])


def test_overwrite_replaces_them_and_an_earlier_prior_is_replaced_anyway(photos: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", {"backbone": "toy", "patches": 8, "clusters": 4}
    text(out / "head.safetensors", "mine")
    made = training.background_prior(photos, out, overwrite=True, **again)
    assert made.weights.read_bytes() != b"mine"
    training.background_prior(photos, out, seed=1, **again)


def test_a_run_is_begun_anew_when_told_so(tmp_path: Path) -> None:
    first = train(Curve(), Schedule(**QUICK), tmp_path, {})
    with pytest.raises(TrainingError, match=r"begin anew \(--overwrite\)"):
        train(Curve(), Schedule(**QUICK), tmp_path, {})
    check_output(tmp_path, OF_A_RUN)  # of a training
    assert train(Curve(), Schedule(**QUICK), tmp_path, {}, overwrite=True) == first
