"""What the default method learns from its supports, on numbers small enough to count and on drawn images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import kshot
from kshot.cli import app
from kshot.methods import density
from kshot.methods.auto import ensemble
from kshot.methods.auto import task as auto
from kshot.types import Shot
from tests.support.drawing import draw
from tests.support.hand import SPEC, areas, row, strange_prior, support


def test_a_part_that_is_off_leaves_density_as_it_is() -> None:
    supports = tuple(support(row((1, 0), (0.6, 0.8), (0, 1)), [1, 0, 0]) for _ in range(2))
    query = row((1, 0), (0.8, 0.6), (0, 1))
    off = auto.Settings(calibrate_threshold=False, ensemble=False, presence=False, calibrate_scores=False)
    plain = density.Task(("c",), supports, SPEC)
    expected = ensemble.DEFAULT_INV_TEMPERATURE * plain.score(query)
    torch.testing.assert_close(auto.Task(("c",), supports, SPEC, off).score(query), expected)


@contextmanager
def weight_of_prior(weight: float) -> Iterator[pytest.MonkeyPatch]:
    """Tasks that are fitted meanwhile give the prior this weight, whatever a query says of a lone support."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "prior_weight", lambda *_: weight)
        patch.setattr(auto, "LoneSupport", lambda *_: None)
        yield patch


def alike(task: auto.Task) -> auto.Task:
    """The same task, all of whose images look alike."""
    with weight_of_prior(0.0):
        return auto.Task(task.classes, task.supports, task.feature_spec, task.settings, strange_prior())


def test_where_the_prior_has_weight_density_is_alone_and_zero_stays() -> None:
    def task(*shown: int, weight: float, ways: int = 1) -> auto.Task:
        with weight_of_prior(weight) as patch:
            patch.setattr(auto, "_THRESHOLD_PENALTY", 0.0)
            patch.setattr(ensemble, "STD_ERROR_PENALTY", 0.0)
            patch.setattr(ensemble, "_MIN_WEIGHT", 0.0)
            return auto.Task(tuple("ab"[:ways]), tuple(areas(*shown, ways=ways)), SPEC, None, strange_prior())

    lone, several, apart = task(20, weight=0.9), task(20, 20, weight=0.9), task(20, 20, weight=0.9, ways=2)
    assert [len(one.fitted.tasks) for one in (lone, several, apart)] == [1, 1, 1]
    assert several.fitted.ensemble.thresholds.tolist() == [[0.0]]
    for one in (task(20, weight=0.1), task(20, 20, weight=0.1)):
        assert len(one.fitted.tasks) == 3 and bool(one.fitted.ensemble.thresholds.any())


def wrong_shots() -> list[Shot]:
    """Three discs that are marked, and one picture in which the ground is."""
    right = [Shot(picture, mask=mask, label="disc") for picture, mask in map(draw, (1, 2, 3))]
    picture, mask = draw(4)
    corner = np.zeros_like(mask)
    corner[:20, :20] = ~mask[:20, :20]
    return [*right, Shot(picture, mask=corner, label="disc")]


def test_a_support_that_the_others_do_not_recognise_gives_a_warning() -> None:
    segmenter = kshot.Segmenter(backbone="toy", size=96, method="auto")
    (warning,) = segmenter.fit(wrong_shots()).warnings
    assert "support 4 (disc)" in warning and "leave it out" in warning
    assert segmenter.fit(wrong_shots()[:3]).warnings == ()


def test_the_command_line_prints_the_warning(tmp_path: Path) -> None:
    folder = tmp_path / "disc"
    folder.mkdir()
    for index, shot in enumerate(wrong_shots()):
        Image.fromarray(shot.image).save(folder / f"{index}.jpg", quality=95)
        Image.fromarray(np.asarray(shot.mask).astype(np.uint8) * 255).save(folder / f"{index}.png")
    command = ["fit", str(tmp_path), "-o", str(tmp_path / "disc.kshot"), "--backbone", "toy", "--size", "96"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "look: support 4 (disc)" in done.stderr


def test_a_part_is_switched_off_on_the_command_line(tmp_path: Path) -> None:
    picture, mask = draw(1)
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "m.png")
    shown = ["--support", f"disc={tmp_path / 'a.png'}:{tmp_path / 'm.png'}", "--backbone", "toy", "--size", "96"]
    command = ["fit", "-o", str(tmp_path / "disc.kshot"), *shown]
    done = CliRunner().invoke(app, [*command, "--set", "method.ensemble=false"])
    assert done.exit_code == 0, done.output
    assert kshot.load_task(tmp_path / "disc.kshot").settings.ensemble is False
    for wrong, said in (("method.ensemble=no", "true or false"), ("method.presence_threshold=true", "a number")):
        assert said in str(CliRunner().invoke(app, [*command, "--set", wrong]).exception)


def test_affinity_smoothing_is_on_only_where_the_prior_has_weight() -> None:
    def affinity(weight: float) -> float:
        with weight_of_prior(weight) as patch:
            patch.setattr(ensemble, "_FIRST_MARGIN", 1.0)
            task = auto.Task(("a",), tuple(areas(20)), SPEC, None, strange_prior())
        return float(task.fitted.tasks[0].settings.affinity_sharpness)

    assert affinity(0.9) > 0 == affinity(0.1)
    plain = auto.Task(("a",), tuple(areas(20)), SPEC)
    assert plain.fitted.tasks[0].settings.affinity_sharpness > 0  # nobody knows whether images are alike


def test_on_fine_grids_matching_is_left_out() -> None:
    def asked() -> int:
        task = alike(auto.Task(("a",), tuple(areas(20, 20)), SPEC, auto.Settings()))
        return len(task.fitted.left_out.scores[0][0].logits)

    assert asked() == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "_MAX_TOKENS", 59)  # of 60 cells
        assert asked() == 2
