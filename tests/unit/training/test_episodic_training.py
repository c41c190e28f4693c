"""Learning methods on episodes: what has a gradient, what falls, what is written, and that it resumes exactly."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kshot
from kshot.data.base import load_dataset
from kshot.errors import BackboneMismatchError, SettingError, TrainingError
from kshot.io.tensor_file import FILE, Learned, read_learned, write_learned
from kshot.methods.dense_comparison import ClassPrototypes, ComparisonHead, Shape
from kshot.training import log
from kshot.training.episodic_recipes import RECIPES
from kshot.training.episodic_training import EpisodicResult, episodic
from kshot.types import Shot
from tests.support.disc_episodes import disc, make_colours

QUICK = replace(RECIPES["quick"], epochs=2, lr=1e-2)
CHOICES = {"novel": ("red", "blue"), "validation": 4, "test": 3, "episodes_per_epoch": 8}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_colours(tmp_path_factory.mktemp("data") / "colours")


def run(colours: Path, out: Path, method: str = "prototype", **more: Any) -> EpisodicResult:
    segmenter = kshot.Segmenter(backbone="toy", size=64, method=method, refiner="none")
    chosen = replace(QUICK, epochs=more.pop("epochs", QUICK.epochs))
    width = None if method == "prototype" else 8
    data = load_dataset("folder", colours)
    return episodic(segmenter, data, out, recipe=chosen, width=width, cache=out.parent / "cache", **CHOICES, **more)


@pytest.mark.parametrize("method", ["prototype", "dense-comparison"])
def test_a_killed_run_that_is_resumed_has_the_same_losses(method: str, colours: Path, tmp_path: Path) -> None:
    def as_killed(stage: str, done: int, steps: int, figures: dict[str, float]) -> None:
        if done == 3:  # its last checkpoint is of step 2, its log goes on beyond
            shutil.copytree(tmp_path / "whole", tmp_path / "cut")

    run(colours, tmp_path / "whole", method, progress=as_killed)
    run(colours, tmp_path / "cut", method, resume=True)
    whole, cut = (
        [{**line, "seconds": 0} for line in log.read(tmp_path / name) if line["kind"] in {"train", "val"}]
        for name in ("whole", "cut")
    )
    assert len(whole) == 6 and whole == cut
    first, second = (read_learned(tmp_path / name) for name in ("whole", "cut"))
    assert first.digest == second.digest and first.facts["base"] == ["black", "violet", "white", "yellow"]


def test_a_run_lies_there_already(colours: Path, tmp_path: Path) -> None:
    run(colours, tmp_path / "a", epochs=1)
    with pytest.raises(TrainingError, match="holds a run already"):
        run(colours, tmp_path / "a", epochs=1)


def test_only_the_head_learns_and_novel_episodes_can_be_evaluated(colours: Path, tmp_path: Path) -> None:
    segmenter = kshot.Segmenter(backbone="toy", size=64, refiner="none")
    before = segmenter.backbone.weight.clone()
    found = run(
        colours, tmp_path / "a", "prototype", augment=("flip", "scale", "color-jitter", "copy-paste"), variants=1
    )
    assert torch.equal(segmenter.backbone.weight, before) and 0 <= found.best <= 1
    learned = read_learned(tmp_path / "a" / FILE)
    assert set(learned.tensors) == {"projection.weight"}
    assert not torch.equal(learned.tensors["projection.weight"], torch.eye(16))
    drawn = kshot.episodes.csv.read_episodes(tmp_path / "a" / "novel.csv", load_dataset("folder", colours))
    assert len(drawn) == 3 and {c for episode in drawn for c in episode.classes} <= {2, 3}


def test_the_head_gives_a_logit_a_cell_and_takes_shots_in_any_order() -> None:
    torch.manual_seed(0)
    head = ComparisonHead(Shape(16, 8)).eval()
    query, shots, ground = torch.randn(16, 5, 7), torch.randn(3, 16), torch.randn(16)
    forward = head(query, [ClassPrototypes(shots, ground), ClassPrototypes(shots[:1], ground)], 2)
    assert tuple(forward.shape) == (2, 5, 7)
    backward = head(query, [ClassPrototypes(shots[[2, 0, 1]], ground), ClassPrototypes(shots[:1], ground)], 2)
    torch.testing.assert_close(forward, backward)
    with pytest.raises(SettingError, match="multiple of 8"):
        Shape(16, 12)


def projection(folder: Path, identity: str, weight: torch.Tensor) -> str:
    facts = {"method": "prototype", "backbone": "toy", "identity": identity}
    write_learned(folder / FILE, Learned(facts, {"projection.weight": weight}))
    return str(folder)


def test_a_task_holds_the_weights_that_it_was_fitted_with(
    toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path
) -> None:
    features = toy.features(disc(3, "red")[0])
    plain = kshot.Segmenter(backbone=toy.backbone, size=96, method="prototype").fit(shots)
    scores = []
    for weight in (torch.eye(16), torch.diag(torch.linspace(0.1, 2, 16))):
        where = projection(tmp_path, toy.backbone.identity, weight)
        made = kshot.Segmenter(backbone=toy.backbone, size=96, method="prototype", method_settings={"weights": where})
        task = made.fit(shots)
        saved = task.save(tmp_path / "t.kshot")
        (tmp_path / FILE).unlink()
        again = kshot.load_task(saved)
        assert torch.equal(again.score(features), task.score(features)) and again.digest() == task.digest()
        assert task.digest() != plain.digest()
        scores.append(task.score(features))
    torch.testing.assert_close(scores[0], plain.score(features), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(scores[1], scores[0], atol=1e-2)


def test_a_saved_task_of_a_trained_head_needs_no_other_file(
    toy: kshot.Segmenter, shots: list[Shot], comparison_head: Path, tmp_path: Path
) -> None:
    settings = {"weights": str(shutil.copytree(comparison_head, tmp_path / "head"))}
    made = kshot.Segmenter(backbone=toy.backbone, size=96, method="dense-comparison", method_settings=settings)
    task = made.fit(shots)
    saved = task.save(tmp_path / "t.kshot")
    shutil.rmtree(tmp_path / "head")
    again = kshot.load_task(saved)
    picture = disc(3, "red")[0]
    found = kshot.Segmenter.for_task(again, backbone=toy.backbone).predict(again, picture)
    assert np.array_equal(found.mask, made.predict(task, picture).mask) and found.mask.any()


def test_weights_that_do_not_belong_here(toy: kshot.Segmenter, shots: list[Shot], tmp_path: Path) -> None:
    def fit(method: str, where: str) -> None:
        kshot.Segmenter(backbone=toy.backbone, size=96, method=method, method_settings={"weights": where}).fit(shots)

    with pytest.raises(SettingError, match="no weights here"):
        fit("prototype", str(tmp_path / "nowhere"))
    where = projection(tmp_path, toy.backbone.identity, torch.eye(16))
    with pytest.raises(SettingError, match="learned for the method prototype"):
        fit("dense-comparison", where)
    with pytest.raises(BackboneMismatchError, match="learned on features of toy"):
        fit("prototype", projection(tmp_path, "another", torch.eye(16)))
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises(SettingError, match="no weights of a method"):
        fit("prototype", str(tmp_path))
    with pytest.raises(SettingError, match="kshot train episodic"):
        kshot.Segmenter(backbone=toy.backbone, size=96, method="dense-comparison").fit(shots)
