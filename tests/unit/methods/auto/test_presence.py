"""Presence of one class, and of classes that compete, counted by hand."""

import math
from dataclasses import replace

import pytest
import torch

from kshot.methods import density
from kshot.methods._support_tokens import top_k_log_ratio
from kshot.methods.auto import task as auto
from kshot.methods.auto.presence import exclusive_pairs, pairwise_presence_logits
from tests.support.hand import SPEC, areas, random_support, row, strange_prior, support


def test_presence_is_half_where_the_best_patches_are_at_the_midpoint() -> None:
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


def test_classes_are_compared_with_their_strongest_competitor() -> None:
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


def test_classes_that_an_image_shows_together_do_not_compete() -> None:
    grid = row((1, 0), (0, 1), (1, 1))
    both, third = support(grid, [1, 0, 0], [0, 1, 0], [0, 0, 0]), support(grid, [0, 0, 0], [0, 0, 0], [0, 0, 1])
    assert exclusive_pairs([both, third]).tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "prior_weight", lambda *_: 1.0)
        task = auto.Task(("a", "b"), (support(grid, [1, 0, 0], [0, 1, 0]),), SPEC, None, strange_prior(width=2))
    plain = replace(task, settings=auto.Settings(competitor_margin_weight=0.0))
    logits = task.score(grid)
    assert task.presence_threshold == 0.2 and torch.equal(task.presence(grid, logits), plain.presence(grid, logits))


def test_classes_compete_as_far_as_the_prior_has_weight() -> None:
    def task(weight: float, ways: int, **changed: float) -> auto.Task:
        chosen = auto.Settings(**changed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto, "prior_weight", lambda *_: weight)
            return auto.Task(tuple("ab"[:ways]), tuple(areas(*[20] * ways, ways=ways)), SPEC, chosen, strange_prior())

    query, settings = random_support(7).features, auto.Settings()
    assert [task(weight, 2).presence_threshold for weight in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.3, 0.4])
    assert task(1.0, 1).presence_threshold == 0.2
    for changed, threshold in (
        ({"presence_threshold": 0.6}, 0.6),
        ({"competing_presence_threshold": 0.3}, 0.3),
        ({"presence_threshold": 0.1, "competing_presence_threshold": 0.1}, 0.1),
    ):
        assert task(1.0, 2, **changed).presence_threshold == pytest.approx(threshold)
    for weight in (0.0, 0.5, 1.0):
        asked = task(weight, 2)
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
        expected = (1 - weight) * alone + weight * rivals
        torch.testing.assert_close(asked.presence(query, logits).logit(), expected, atol=1e-4, rtol=1e-4)
