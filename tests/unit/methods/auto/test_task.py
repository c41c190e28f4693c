"""What the default method learns from its supports, on numbers small enough to count and on drawn pictures."""

import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import kshot
from kshot.cli import app
from kshot.io.tensor_file import Learned
from kshot.methods import attention, density, matching
from kshot.methods._leave_one_out import (
    CANDIDATE_THRESHOLDS,
    EnsembleMember,
    HeldOutScores,
    LeaveOneOut,
    _held_out,
    _pool,
    _within_one_support,
    leave_one_out,
)
from kshot.methods._support_tokens import SupportTokens, top_k_log_ratio
from kshot.methods.auto import task as auto
from kshot.methods.auto.ensemble import Ensemble, Weighting, fit_ensemble, fit_inv_temperature
from kshot.methods.auto.presence import exclusive_pairs, pairwise_presence_logits
from kshot.methods.base import Support
from kshot.types import Shot
from tests.support.drawing import draw
from tests.support.hand import SPEC, random_support, row, support

WEIGHTING = Weighting(10.0, base_method_margin=0.0, std_error_penalty=0.0, min_member_weight=0.05)
FREE, DEAR = torch.zeros(2), torch.full((2,), 10.0)


def ious(*of_readings: dict[float, float], usual: float = 0.5) -> torch.Tensor:
    """(1, readings, t): IoUs of one sample, `usual` but at the thresholds that are named."""
    return torch.tensor([[[named.get(t, usual) for t in CANDIDATE_THRESHOLDS.tolist()] for named in of_readings]])


def everywhere(value: float) -> dict[float, float]:
    return dict.fromkeys(CANDIDATE_THRESHOLDS.tolist(), value)


def test_ious_at_each_threshold_are_counted() -> None:
    """Logits 0.6, 0.3, -0.3 over a mask of the first cell: 1/3 of all, 1/2 above zero, 1/1 above 0.5, none above 1."""
    found = _held_out(torch.tensor([[[0.6, 0.3, -0.3]]]), support(row((1, 0), (0, 1), (0, 1)), [1, 0, 0]), 0).ious[0]
    assert [float(found[CANDIDATE_THRESHOLDS.tolist().index(t)]) for t in (-0.5, 0.0, 0.5, 1.0)] == pytest.approx(
        [1 / 3, 1 / 2, 1, 0]
    )


def test_a_threshold_is_the_best_one_less_its_toll() -> None:
    """0.7 at best, so 0.7 counts as 0.5 and 0.5 as 0.36: what is won is 0.14, and the toll at 0.5 a quarter of it."""
    samples, nowhere = ious({0.5: 0.7}), torch.zeros(1)
    for toll, threshold in ((0.0, 0.5), (0.5, 0.5), (0.6, 0.0)):
        ensemble = fit_ensemble([samples], nowhere, 1, torch.tensor([toll]), WEIGHTING)
        assert ensemble.thresholds.tolist() == [[threshold]] and ensemble.weights.tolist() == [1]


def test_readings_weigh_by_what_they_find_at_their_thresholds() -> None:
    """0.3 and 0.6 (at 1, where it costs nothing): parts 0.25 and 0.5 of twice the best, so e^2.5 to one; with favour
    0.25 for the first they are level."""
    samples = ious(everywhere(0.3), {1.0: 0.6}, usual=0.3)
    ensemble = fit_ensemble([samples], torch.zeros(1), 2, FREE, WEIGHTING)
    assert ensemble.weights.tolist() == pytest.approx([1 / (1 + math.exp(2.5)), 1 / (1 + math.exp(-2.5))])
    assert float(ensemble.thresholds[1, 0]) == 1 and ensemble.used == [0, 1]
    level = fit_ensemble([samples], torch.zeros(1), 2, FREE, WEIGHTING._replace(base_method_margin=0.25))
    assert level.weights.tolist() == pytest.approx([0.5, 0.5])


def test_what_is_won_in_one_support_alone_is_luck() -> None:
    """Parts won: 0.3, 0, 0, so 0.1 in the mean with a standard error of 0.1; for a threshold, and for a reading."""
    lucky = torch.cat([ious(everywhere(0.2), {0.5: 0.5}, usual=0.2), *[ious(everywhere(0.5), everywhere(0.5))] * 2])
    for sure, threshold, share in ((0.9, 0.5, 1 / (1 + math.exp(-0.1))), (1.1, 0.0, 0.5)):
        ensemble = fit_ensemble(
            [lucky], torch.zeros(1), 2, torch.tensor([1e-6]), WEIGHTING._replace(std_error_penalty=sure)
        )
        assert ensemble.thresholds.tolist() == [[0], [threshold]]
        assert float(ensemble.weights[1]) == pytest.approx(share, abs=1e-4)


def test_a_weight_that_is_next_to_nothing_is_nothing() -> None:
    samples = ious(everywhere(0.1), everywhere(0.6))
    ensemble = fit_ensemble([samples], torch.zeros(1), 2, FREE, WEIGHTING)  # e^-4.2 to one is below a twentieth
    assert ensemble.weights.tolist() == [0, 1] and ensemble.used == [1]


def test_small_ious_count_as_parts_of_the_best() -> None:
    large, small = ious(everywhere(0.3), everywhere(0.6)), ious(everywhere(0.05), everywhere(0.1))
    weights = [fit_ensemble([samples], torch.zeros(1), 2, FREE, WEIGHTING).weights for samples in (large, small)]
    torch.testing.assert_close(*weights)


def test_readings_are_compared_by_the_mean_over_classes() -> None:
    """Reading 1 wins a quarter of twice the best for one class and loses as much for the other."""
    both = [ious(everywhere(0.3), everywhere(0.6)), ious(everywhere(0.8), everywhere(0.4))]
    assert fit_ensemble(both, torch.zeros(2), 2, FREE, WEIGHTING).weights.tolist() == pytest.approx([0.5, 0.5])


def test_a_class_that_nothing_was_sought_of_keeps_its_middle() -> None:
    ensemble = fit_ensemble([None, ious({0.5: 0.9})], torch.tensor([-1.0, 0.25]), 1, FREE, WEIGHTING)
    assert ensemble.thresholds.tolist() == [[-1.0, 0.75]]
    none = fit_ensemble([None], torch.tensor([0.5]), 3, FREE, WEIGHTING)
    assert none.weights.tolist() == [1, 0, 0] and none.thresholds.tolist() == [[0.5]] * 3
    assert fit_ensemble([ious({0.5: 0.9})], torch.zeros(1), 1, DEAR, WEIGHTING).thresholds.tolist() == [[0]]


def test_a_blend_is_the_weighted_mean_of_what_lies_above_the_thresholds() -> None:
    ensemble = Ensemble(torch.tensor([0.25, 0.0, 0.75]), torch.tensor([[1.0], [9.0], [-1.0]]))
    planes = [torch.tensor([0.0, value]).reshape(2, 1, 1) for value in (3.0, 2.0)]
    assert ensemble.combine(planes).flatten().tolist() == [0, 0.25 * 2 + 0.75 * 3]


def test_the_scale_makes_scores_mean_what_they_say() -> None:
    """Cells at +-2 of which one in eight is wrong: log 7 / 2 = 0.97 says so; where half are wrong, nothing is told."""
    margins = torch.tensor([[2.0] * 8 + [-2.0] * 8])
    one, half = torch.tensor([1.0] * 7 + [0.0] * 8 + [1.0]), torch.tensor([1.0, 0.0] * 8)
    alone = Ensemble(torch.ones(1), torch.zeros(1, 1))
    for mask, firmness, expected in ((one, 0.0, 1.0), (half, 0.0, 0.05), (half, 1e6, 0.7)):
        held = LeaveOneOut(((),), ((HeldOutScores(margins, mask, torch.ones(16)),),), torch.zeros(1), torch.ones(1))
        assert fit_inv_temperature(alone, held, 0.7, firmness) == pytest.approx(expected)
    assert fit_inv_temperature(alone, LeaveOneOut(((),), ((),), torch.zeros(1), torch.ones(1)), 0.7, 0.0) == 0.7


def test_the_middle_leaves_a_cell_and_those_around_it_out() -> None:
    """Class cells 0 and 4 of eight. Kernels are 1 within a side and e^-2 across; cells up to two away do not count.

    Cell 0 sees class 4, background 3, 5, 6, 7: log (1/2) / (4/6 e^-2); cell 4 sees 0 and 1, 7: log (1/2) / (2/6 e^-2).
    Background cells: 1 and 6 are at -2, 3 and 5 at -2 + log 1.5, 7 at -2 + log 2; 2 sees no class: -5, the limit.
    """
    features = row(*[(1, 0), (0, 1), (0, 1), (0, 1)] * 2)
    middle, familiar = _within_one_support(support(features, [1, 0, 0, 0] * 2), 0, kappa=2.0, fraction=1 / 8)
    shown = 2 + (math.log(0.75) + math.log(1.5)) / 2
    ground = (-15 + 2 * math.log(1.5) + math.log(2)) / 6
    assert float(middle) == pytest.approx((shown + ground) / 2, abs=1e-4)
    assert float(familiar) == pytest.approx(2 + math.log(1.5), abs=1e-4)


def test_familiarity_is_the_log_ratio_of_the_best_cells() -> None:
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC)
    query = row((1, 0), (0, 1), (0, 1), (0, 1))
    found = top_k_log_ratio(task.fitted, query, task.score(query), 0, fraction=0.25, kappa=2.0)
    assert float(found) == pytest.approx(2.0, abs=1e-4)


def test_presence_is_half_where_the_best_cells_are_as_familiar_as_the_centre() -> None:
    """The kernel has kappa 20: the log ratio of a cell like the class, the background at a right angle."""
    supports = (support(row(*[(1, 0), (0, 1), (0, 1), (0, 1)] * 2), [1, 0, 0, 0] * 2),)
    query = row((1, 0), (0, 1), (0, 1), (0, 1))
    for usual, expected in ((20.0, 0.5), (10.0, 1 / (1 + math.exp(-2.1)))):
        task = auto.Task(
            ("c",),
            supports,
            SPEC,
            auto.Settings(max_presence_midpoint=usual, presence_midpoint=100.0, presence_top_fraction=0.25),
        )
        assert float(task.presence(query, task.score(query))) == pytest.approx(expected, abs=1e-3)


def test_classes_are_compared_with_their_most_familiar_rival() -> None:
    """Log ratios 5.5, 3.5 and 1.5: a fifth of what lies above 3.5, and half of what lies above the best rival."""
    two, three = ~torch.eye(2, dtype=torch.bool), ~torch.eye(3, dtype=torch.bool)
    nan = torch.full((3,), torch.nan)
    assert pairwise_presence_logits(torch.tensor([5.5, 3.5]), two, 0.5, nan[:2]).tolist() == pytest.approx(
        [0.4 + 1, -1]
    )
    assert pairwise_presence_logits(torch.tensor([1.5, 5.5, 3.5]), three, 0.5, nan).tolist() == pytest.approx(
        [-2.4, 1.4, -1]
    )
    assert pairwise_presence_logits(torch.tensor([3.5, 3.5]), two, 0.5, nan[:2]).tolist() == [0, 0]
    three[0, 1] = three[1, 0] = three[0, 2] = three[2, 0] = False  # the first has no rival
    assert pairwise_presence_logits(
        torch.tensor([1.5, 5.5, 3.5]), three, 0.5, torch.tensor([7.0, 8, 9])
    ).tolist() == pytest.approx([7, 0.4 + 1, -1])


def test_classes_that_an_image_shows_together_are_no_rivals() -> None:
    grid = row((1, 0), (0, 1), (1, 1))
    both, third = support(grid, [1, 0, 0], [0, 1, 0], [0, 0, 0]), support(grid, [0, 0, 0], [0, 0, 0], [0, 0, 1])
    assert exclusive_pairs([both, third]).tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "prior_weight", lambda *_: 1.0)
        task = auto.Task(("a", "b"), (support(grid, [1, 0, 0], [0, 1, 0]),), SPEC, None, strange(width=2))
    plain = replace(task, settings=auto.Settings(competitor_margin_weight=0.0))
    logits = task.score(grid)
    assert task.presence_threshold == 0.2 and torch.equal(task.presence(grid, logits), plain.presence(grid, logits))


def test_several_classes_are_rivals_as_far_as_images_are_of_many_places() -> None:
    def task(believed: float, ways: int) -> auto.Task:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto, "prior_weight", lambda *_: believed)
            return auto.Task(tuple("ab"[:ways]), tuple(areas(*[20] * ways, ways=ways)), SPEC, None, strange())

    query, settings = random_support(7).features, auto.Settings()
    assert [task(believed, 2).presence_threshold for believed in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.3, 0.4])
    assert task(1.0, 1).presence_threshold == 0.2
    for believed in (0.0, 0.5, 1.0):
        asked = task(believed, 2)
        logits = asked.score(query)
        fraction, kappa = settings.presence_top_fraction, density.Settings().kappa
        ratios = [top_k_log_ratio(asked.fitted.supports, query, logits, way, fraction, kappa) for way in (0, 1)]
        seen = torch.stack(ratios)
        centre = (settings.presence_midpoint * asked.fitted.left_out.top_k_log_ratios).clamp(
            0.1, settings.max_presence_midpoint
        )
        alone = settings.presence_slope * (seen / centre - 1)
        rivals = pairwise_presence_logits(
            seen, ~torch.eye(2, dtype=torch.bool), settings.competitor_margin_weight, alone
        )
        expected = (1 - believed) * alone + believed * rivals
        torch.testing.assert_close(asked.presence(query, logits).logit(), expected, atol=1e-4, rtol=1e-4)


def test_an_object_of_one_patch_is_as_familiar_as_anything() -> None:
    _, familiar = _within_one_support(
        support(row((1, 0), *[(0, 1)] * 5), [1, 0, 0, 0, 0, 0]), 0, kappa=2.0, fraction=1 / 6
    )
    assert float(familiar) == 5


def test_a_part_that_is_off_leaves_density_as_it_is() -> None:
    supports = tuple(support(row((1, 0), (0.6, 0.8), (0, 1)), [1, 0, 0]) for _ in range(2))
    query = row((1, 0), (0.8, 0.6), (0, 1))
    off = auto.Settings(
        calibrate_threshold=False, ensemble=False, presence=False, calibrate_scores=False, inv_temperature=1.0
    )
    plain = density.Task(("c",), supports, SPEC)
    torch.testing.assert_close(auto.Task(("c",), supports, SPEC, off).score(query), plain.score(query))


def test_at_most_so_many_supports_are_left_out() -> None:
    supports = [support(row((1, 0), (0, 1)), [1 - 0.01 * i, 0]) for i in range(7)]
    reading = EnsembleMember(density.Task, density.Settings(), ("c",), SPEC)
    held = leave_one_out(supports, [reading], max_supports=3, fraction=0.5, kappa=20.0)
    assert held.left_out == ((0, 1, 2),)  # those that show most of it


def areas(*of_supports: int, ways: int = 1) -> list[Support]:
    """Random supports of 60 cells, each with so many cells of the class at its place, the classes by turns."""
    made = []
    for index, area in enumerate(of_supports):
        drawn = random_support(index)
        masks = torch.zeros(ways, 1, 60)
        masks[index % ways, 0, :area] = 1
        made.append(Support(drawn.features, masks, drawn.valid_mask))
    return made


def strange(identity: str = "hand", width: int = 8) -> Learned:
    """A universal background that no random cell resembles, so it is not believed: its images are all of one place."""
    facts = {"method": "density", "identity": identity, "backbone": "hand"}
    return Learned(facts, {"means": torch.full((4, width), -1e-3), "shares": torch.full((4,), 0.25)})


def alike(task: auto.Task) -> auto.Task:
    """The same task where the universal background is not believed at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "prior_weight", lambda *_: 0.0)
        return auto.Task(task.classes, task.supports, task.feature_spec, task.settings, strange())


def test_classes_that_one_support_shows_have_a_way_back_where_images_are_alike() -> None:
    def task(supports: list[Support], **settings: bool) -> auto.Task:
        names = tuple("abc"[: len(supports[0].masks)])
        return auto.Task(names, tuple(supports), SPEC, auto.Settings(**settings))

    def ways_back(*arguments: list[Support], **settings: bool) -> list[bool]:
        return [cycle is not None for cycle in alike(task(*arguments, **settings)).fitted.cycles]

    assert ways_back(areas(20)) == [True]
    assert ways_back(areas(20, 20)) == [False]
    assert ways_back(areas(20, 20, 0, 20, ways=3)) == [False, True, False]  # no support shows the third
    assert ways_back(areas(20), cycle_consistency=False) == ways_back(areas(20), calibrate_threshold=False) == []
    assert task(areas(20)).fitted.cycles == ()  # nobody knows whether images are alike
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "_MAX_TOKENS", 59)  # of 60 cells
        assert ways_back(areas(20)) == [False]


def test_a_way_back_moves_the_threshold_of_a_query() -> None:
    """Off, the margin of the class's cells and of the others is what it is; on, all move by the same."""
    supports, query = tuple(areas(20)), random_support(7).features
    off, on = (
        alike(auto.Task(("a",), supports, SPEC, auto.Settings(cycle_consistency=cycle))) for cycle in (False, True)
    )
    moved = (on.score(query) - off.score(query))[1] / off.fitted.ensemble.inv_temperature
    cycle = on.fitted.cycles[0]
    assert cycle is not None
    margins = off.score(query)[1] / off.fitted.ensemble.inv_temperature
    torch.testing.assert_close(moved, -cycle.threshold(query, margins).expand_as(moved), atol=1e-4, rtol=0)
    assert float(moved.abs().max()) > 1e-3


def test_of_images_of_many_places_the_usual_method_is_asked_alone_and_zero_stays() -> None:
    def task(*shown: int, believed: float, ways: int = 1) -> auto.Task:
        settings = auto.Settings(min_member_weight=0.0, threshold_penalty=0.0, std_error_penalty=0.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto, "prior_weight", lambda *_: believed)
            return auto.Task(tuple("ab"[:ways]), tuple(areas(*shown, ways=ways)), SPEC, settings, strange())

    lone, several, apart = task(20, believed=0.9), task(20, 20, believed=0.9), task(20, 20, believed=0.9, ways=2)
    assert [len(one.fitted.tasks) for one in (lone, several, apart)] == [1, 1, 1]
    assert several.fitted.ensemble.thresholds.tolist() == [[0.0]]
    for one in (task(20, believed=0.1), task(20, 20, believed=0.1)):
        assert len(one.fitted.tasks) == 3 and bool(one.fitted.ensemble.thresholds.any())


@pytest.mark.parametrize("shown", [(20, 14), (9, 20, 0, 7, 31), (20, 14, 31, 9, 0, 12, 28, 7, 25, 17)])
def test_up_to_ten_supports_of_one_class_are_sought_by_all_the_others(shown: tuple[int, ...]) -> None:
    supports = areas(*shown)
    chosen = ((density, density.Settings()), (attention, attention.Settings()), (matching, matching.Settings()))
    readings = [EnsembleMember(module.Task, settings, ("c",), SPEC) for module, settings in chosen]
    held = leave_one_out(supports, readings, max_supports=5, fraction=0.1, kappa=20.0)
    assert held.left_out[0] == tuple(
        sorted(range(len(shown)), key=lambda i: -shown[i])[: min(5, len(shown) - (0 in shown))]
    )
    for index, found in zip(held.left_out[0], held.scores[0], strict=True):
        rest, query = supports[:index] + supports[index + 1 :], supports[index].features
        logits = torch.stack([reading.fit(rest).score(query)[1] for reading in readings])
        assert torch.equal(found.logits, logits.flatten(1))  # to the bit: published figures hang on it


def test_a_class_is_sought_with_those_that_show_it_most_and_then_with_empty_ones() -> None:
    supports = areas(5, 9, 0, 7, 0)
    assert _pool(supports, [1, 3, 0], 2) == (1, 3)
    assert len(_pool(supports, [1, 3, 0], 4)) == 4 and set(_pool(supports, [1, 3, 0], 4)) > {0, 1, 3}
    assert _pool(supports, [1, 3, 0], 9) == (0, 1, 2, 3, 4)
    backward = {4 - index for index in _pool(supports[::-1], [3, 1, 4], 4)}
    assert backward == set(_pool(supports, [1, 3, 0], 4))  # whatever the order


class Counting(density.Task):
    """Densities that note how many supports they are fitted on."""

    sizes: ClassVar[list[int]] = []

    def _fitted(self) -> SupportTokens:
        self.sizes.append(len(self.supports))
        return super()._fitted()


@pytest.mark.parametrize(
    ("ways", "shots", "fits"), [(1, 3, [2] * 3), (4, 3, [2] * 12), (8, 3, [2] * 24), (1, 30, [9] * 5)]
)
def test_the_work_grows_with_the_classes_and_not_with_the_supports(ways: int, shots: int, fits: list[int]) -> None:
    Counting.sizes.clear()
    supports = areas(*range(5, 5 + ways * shots), ways=ways)
    reading = EnsembleMember(Counting, density.Settings(), tuple("abcdefgh"[:ways]), SPEC)
    held = leave_one_out(supports, [reading], max_supports=5, fraction=0.1, kappa=20.0)
    assert Counting.sizes == fits
    assert [len(left) for left in held.left_out] == [min(shots, 5)] * ways


def test_supports_that_show_several_classes_are_left_out_once() -> None:
    Counting.sizes.clear()
    supports = [
        Support(one.features, torch.cat([one.masks, one.masks.flip(2)]), one.valid_mask) for one in areas(20, 14, 9)
    ]
    reading = EnsembleMember(Counting, density.Settings(), ("a", "b"), SPEC)
    held = leave_one_out(supports, [reading], max_supports=5, fraction=0.1, kappa=20.0)
    assert Counting.sizes == [2] * 3
    assert held.left_out == ((0, 1, 2), (0, 1, 2))
    score = reading.fit(supports[1:]).score(supports[0].features)
    assert torch.equal(held.scores[1][0].ious, _held_out(score[None, 2], supports[0], 1).ious)


def wrong_shots() -> list[Shot]:
    """Three discs that are marked, and one picture in which the ground is."""
    right = [Shot(picture, mask=mask, label="disc") for picture, mask in map(draw, (1, 2, 3))]
    picture, mask = draw(4)
    corner = np.zeros_like(mask)
    corner[:20, :20] = ~mask[:20, :20]
    return [*right, Shot(picture, mask=corner, label="disc")]


def test_a_support_that_the_others_do_not_recognise_is_told_of() -> None:
    segmenter = kshot.Segmenter(backbone="toy", size=96, method="auto")
    (warning,) = segmenter.fit(wrong_shots()).warnings
    assert "support 4 (disc)" in warning and "leave it out" in warning
    assert segmenter.fit(wrong_shots()[:3]).warnings == ()


def test_the_command_line_tells_of_it_too(tmp_path: Path) -> None:
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


def test_alike_cells_are_averaged_only_where_images_are_of_many_places() -> None:
    def affinity(believed: float) -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto, "prior_weight", lambda *_: believed)
            task = auto.Task(("a",), tuple(areas(20)), SPEC, auto.Settings(base_method_margin=1.0), strange())
        return float(task.fitted.tasks[0].settings.affinity_sharpness)

    assert affinity(0.9) > 0 == affinity(0.1)
    plain = auto.Task(("a",), tuple(areas(20)), SPEC, auto.Settings(base_method_margin=1.0))
    assert plain.fitted.tasks[0].settings.affinity_sharpness > 0  # nobody knows whether images are alike


def test_where_images_are_alike_a_class_grows_only_so_far() -> None:
    """20 of 60 cells show the class: at a growth of 2 no query shows it in more than 40, at a quarter in 5."""
    supports = tuple(areas(20))

    def found(growth: float, seed: int, **settings: bool) -> int:
        made = auto.Task(
            ("a",), supports, SPEC, auto.Settings(max_area_ratio=growth, cycle_consistency=False, **settings)
        )
        logits = alike(made).score(random_support(seed).features)
        return int((logits[1] > 0).sum())

    twice = alike(auto.Task(("a",), supports, SPEC, auto.Settings(max_area_ratio=2.0)))
    assert twice.fitted.max_fractions.tolist() == pytest.approx([40 / 60])
    for seed in range(8):
        free = found(1000.0, seed)
        assert (found(0.25, seed), found(2.0, seed)) == (min(free, 5), min(free, 40))
        assert found(0.25, seed, calibrate_threshold=False) == found(1000.0, seed, calibrate_threshold=False)
    assert max(found(1000.0, seed) for seed in range(8)) > 5


def test_where_nobody_knows_whether_images_are_alike_a_class_may_fill_them() -> None:
    task = auto.Task(("a",), tuple(areas(20)), SPEC, auto.Settings(max_area_ratio=0.1))
    assert task.fitted.max_fractions.tolist() == [1.0]


def test_on_fine_grids_matching_is_not_asked() -> None:
    def asked() -> int:
        task = alike(auto.Task(("a",), tuple(areas(20, 20)), SPEC, auto.Settings()))
        return len(task.fitted.left_out.scores[0][0].logits)

    assert asked() == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "_MAX_TOKENS", 59)  # of 60 cells
        assert asked() == 2
