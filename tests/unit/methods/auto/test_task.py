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
from kshot.methods.base import Support
from kshot.types import Shot
from tests.support.drawing import draw
from tests.support.hand import SPEC, areas, random_support, row, strange_prior, support


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


def without_cycles(names: tuple[str, ...], supports: tuple[Support, ...], **settings: bool) -> auto.Task:
    """A task as `alike` makes it, whose thresholds do not move by cycle consistency."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto.Task, "_cycles", lambda self: ())
        return alike(auto.Task(names, supports, SPEC, auto.Settings(**settings)))


def test_classes_with_one_support_have_cycle_consistency_where_images_look_alike() -> None:
    def task(supports: list[Support], **settings: bool) -> auto.Task:
        names = tuple("abc"[: len(supports[0].masks)])
        return auto.Task(names, tuple(supports), SPEC, auto.Settings(**settings))

    def ways_back(*arguments: list[Support], **settings: bool) -> list[bool]:
        return [cycle is not None for cycle in alike(task(*arguments, **settings)).fitted.cycles]

    assert ways_back(areas(20)) == [True]
    assert ways_back(areas(20, 20)) == [False]
    assert ways_back(areas(20, 20, 0, 20, ways=3)) == [False, True, False]  # no support shows the third
    assert ways_back(areas(20), calibrate_threshold=False) == []
    assert task(areas(20)).fitted.cycles == ()  # nobody knows whether images are alike
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "_MAX_TOKENS", 59)  # of 60 cells
        assert ways_back(areas(20)) == [False]


def test_cycle_consistency_moves_the_threshold_of_a_query() -> None:
    """Off, the margin of the class's cells and of the others is what it is; on, all move by the same."""
    supports, query = tuple(areas(20)), random_support(7).features
    on = alike(auto.Task(("a",), supports, SPEC))
    off = without_cycles(("a",), supports)
    moved = (on.score(query) - off.score(query))[1] / off.fitted.ensemble.inv_temperature
    cycle = on.fitted.cycles[0]
    assert cycle is not None
    margins = off.score(query)[1] / off.fitted.ensemble.inv_temperature
    torch.testing.assert_close(moved, -cycle.threshold(query, margins).expand_as(moved), atol=1e-4, rtol=0)
    assert float(moved.abs().max()) > 1e-3


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


def test_where_images_look_alike_the_area_of_a_class_is_capped() -> None:
    """20 of 60 cells show the class: at a growth of 2 no query shows it in more than 40, at a quarter in 5."""
    supports = tuple(areas(20))

    def found(growth: float, seed: int, **settings: bool) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto, "_MAX_AREA_RATIO", growth)
            made = without_cycles(("a",), supports, **settings)
        logits = made.score(random_support(seed).features)
        return int((logits[1] > 0).sum())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "_MAX_AREA_RATIO", 2.0)
        twice = alike(auto.Task(("a",), supports, SPEC))
    assert twice.fitted.max_fractions.tolist() == pytest.approx([40 / 60])
    for seed in range(8):
        free = found(1000.0, seed)
        assert (found(0.25, seed), found(2.0, seed)) == (min(free, 5), min(free, 40))
        assert found(0.25, seed, calibrate_threshold=False) == found(1000.0, seed, calibrate_threshold=False)
    assert max(found(1000.0, seed) for seed in range(8)) > 5


def test_without_a_prior_a_class_may_fill_the_image() -> None:
    task = auto.Task(("a",), tuple(areas(20)), SPEC)
    assert task.fitted.max_fractions.tolist() == [1.0]


def test_on_fine_grids_matching_is_left_out() -> None:
    def asked() -> int:
        task = alike(auto.Task(("a",), tuple(areas(20, 20)), SPEC, auto.Settings()))
        return len(task.fitted.left_out.scores[0][0].logits)

    assert asked() == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "_MAX_TOKENS", 59)  # of 60 cells
        assert asked() == 2
