"""Weights, thresholds and temperature of the ensemble, counted by hand."""

import math

import pytest
import torch

from kshot.methods._leave_one_out import (
    CANDIDATE_THRESHOLDS,
    HeldOutScores,
    LeaveOneOut,
)
from kshot.methods.auto import ensemble as ensemble_module
from kshot.methods.auto.ensemble import Ensemble, fit_ensemble, fit_inv_temperature

FREE, DEAR = torch.zeros(2), torch.full((2,), 10.0)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round numbers, so that results can be counted by hand."""
    monkeypatch.setattr(ensemble_module, "_WEIGHT_INV_TEMPERATURE", 10.0)
    monkeypatch.setattr(ensemble_module, "_FIRST_MARGIN", 0.0)
    monkeypatch.setattr(ensemble_module, "STD_ERROR_PENALTY", 0.0)


def ious(*of_members: dict[float, float], usual: float = 0.5) -> torch.Tensor:
    """(1, members, t): IoUs of one sample, `usual` but at the thresholds that are named."""
    return torch.tensor([[[named.get(t, usual) for t in CANDIDATE_THRESHOLDS.tolist()] for named in of_members]])


def everywhere(value: float) -> dict[float, float]:
    return dict.fromkeys(CANDIDATE_THRESHOLDS.tolist(), value)


def test_a_threshold_is_the_best_one_less_its_penalty() -> None:
    """0.7 at best, so 0.7 counts as 0.5 and 0.5 as 0.36: what is won is 0.14, and the toll at 0.5 a quarter of it."""
    samples = ious({0.5: 0.7})
    for toll, threshold in ((0.0, 0.5), (0.5, 0.5), (0.6, 0.0)):
        ensemble = fit_ensemble([samples], 1, torch.tensor([toll]))
        assert ensemble.thresholds.tolist() == [[threshold]] and ensemble.weights.tolist() == [1]


def test_members_weigh_by_what_they_find_at_their_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.3 and 0.6 (at 1, where it costs nothing): parts 0.25 and 0.5 of twice the best, so e^2.5 to one; with favour
    0.25 for the first they are level."""
    samples = ious(everywhere(0.3), {1.0: 0.6}, usual=0.3)
    ensemble = fit_ensemble([samples], 2, FREE)
    assert ensemble.weights.tolist() == pytest.approx([1 / (1 + math.exp(2.5)), 1 / (1 + math.exp(-2.5))])
    assert float(ensemble.thresholds[1, 0]) == 1 and ensemble.used == [0, 1]
    monkeypatch.setattr(ensemble_module, "_FIRST_MARGIN", 0.25)
    level = fit_ensemble([samples], 2, FREE)
    assert level.weights.tolist() == pytest.approx([0.5, 0.5])


def test_what_is_won_in_one_support_alone_is_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts won: 0.3, 0, 0, so 0.1 in the mean with a standard error of 0.1; for a threshold, and for a member."""
    lucky = torch.cat([ious(everywhere(0.2), {0.5: 0.5}, usual=0.2), *[ious(everywhere(0.5), everywhere(0.5))] * 2])
    for sure, threshold, share in ((0.9, 0.5, 1 / (1 + math.exp(-0.1))), (1.1, 0.0, 0.5)):
        monkeypatch.setattr(ensemble_module, "STD_ERROR_PENALTY", sure)
        ensemble = fit_ensemble([lucky], 2, torch.tensor([1e-6]))
        assert ensemble.thresholds.tolist() == [[0], [threshold]]
        assert float(ensemble.weights[1]) == pytest.approx(share, abs=1e-4)


def test_a_weight_that_is_next_to_nothing_is_nothing() -> None:
    samples = ious(everywhere(0.1), everywhere(0.6))
    ensemble = fit_ensemble([samples], 2, FREE)  # e^-4.2 to one is below a twentieth
    assert ensemble.weights.tolist() == [0, 1] and ensemble.used == [1]


def test_small_ious_count_as_parts_of_the_best() -> None:
    large, small = ious(everywhere(0.3), everywhere(0.6)), ious(everywhere(0.05), everywhere(0.1))
    weights = [fit_ensemble([samples], 2, FREE).weights for samples in (large, small)]
    torch.testing.assert_close(*weights)


def test_members_are_compared_by_the_mean_over_classes() -> None:
    """Reading 1 wins a quarter of twice the best for one class and loses as much for the other."""
    both = [ious(everywhere(0.3), everywhere(0.6)), ious(everywhere(0.8), everywhere(0.4))]
    assert fit_ensemble(both, 2, FREE).weights.tolist() == pytest.approx([0.5, 0.5])


def test_a_class_that_was_not_left_out_keeps_zero() -> None:
    ensemble = fit_ensemble([None, ious({0.5: 0.9})], 1, FREE)
    assert ensemble.thresholds.tolist() == [[0.0, 0.5]]
    none = fit_ensemble([None], 3, FREE)
    assert none.weights.tolist() == [1, 0, 0] and none.thresholds.tolist() == [[0.0]] * 3
    assert fit_ensemble([ious({0.5: 0.9})], 1, DEAR).thresholds.tolist() == [[0]]


def test_combined_logits_are_the_weighted_mean_of_what_lies_above_the_thresholds() -> None:
    ensemble = Ensemble(torch.tensor([0.25, 0.0, 0.75]), torch.tensor([[1.0], [9.0], [-1.0]]))
    planes = [torch.tensor([0.0, value]).reshape(2, 1, 1) for value in (3.0, 2.0)]
    assert ensemble.combine(planes).flatten().tolist() == [0, 0.25 * 2 + 0.75 * 3]


def test_the_temperature_makes_scores_mean_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells at +-2 of which one in eight is wrong: log 7 / 2 = 0.97 says so; where half are wrong, nothing is told."""
    margins = torch.tensor([[2.0] * 8 + [-2.0] * 8])
    one, half = torch.tensor([1.0] * 7 + [0.0] * 8 + [1.0]), torch.tensor([1.0, 0.0] * 8)
    alone = Ensemble(torch.ones(1), torch.zeros(1, 1))
    for mask, penalty, expected in ((one, 0.0, 1.0), (half, 0.0, 0.05), (half, 1e6, 0.7)):
        left_out = LeaveOneOut(((),), ((HeldOutScores(margins, mask, torch.ones(16)),),), torch.ones(1))
        monkeypatch.setattr(ensemble_module, "_TEMPERATURE_PENALTY", penalty)
        assert fit_inv_temperature(alone, left_out) == pytest.approx(expected)
    assert fit_inv_temperature(alone, LeaveOneOut(((),), ((),), torch.ones(1))) == 0.7
