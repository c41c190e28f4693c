"""Presence of one class, and of classes that compete, counted by hand."""

import math
from dataclasses import replace

import pytest
import torch

from kshot.io.tensor_file import Learned
from kshot.methods.auto import task as auto
from kshot.methods.auto.presence import (
    CUES,
    alike_log_odds,
    exclusive_pairs,
    photograph_log_odds,
    presence_cues,
    token_cosines,
)
from tests.support.hand import SPEC, areas, random_support, row, strange_prior, support


def test_cues_are_those_that_are_named() -> None:
    """Two classes that compete and a third that does not, in the order of `CUES`."""
    exclusive = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    found = presence_cues(
        torch.tensor([4.0, 1.0, 2.0]), torch.tensor([3.0, 9.0, 2.5]), torch.tensor([0.5, 0.75, 0.25]), exclusive
    )
    assert found.shape == (3, len(CUES))
    assert found.tolist() == [
        [4.0, 1.0, 0.5, 1.0, 3.0, -0.25],
        [1.0, -4.0, 0.75, 1.0, -3.0, 0.25],
        [2.0, -0.5, 0.25, 0.0, 0.0, 0.0],
    ]


def test_photographs_are_judged_by_a_weighted_sum() -> None:
    cues = torch.tensor([[1.0, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]])
    model = torch.tensor([0.5, 0, 0, 0, 0, 1.0, -2.0])
    assert photograph_log_odds(cues, model).tolist() == [0.5 + 6 - 2, -2.0]


def test_where_images_look_alike_a_fifth_of_the_usual_log_ratio_has_even_odds() -> None:
    """3.5 for each unit above; a usual log ratio counts as 0.2 at least and 5 at most."""
    found = alike_log_odds(torch.tensor([0.4, 2.0, 1.0, 1.0]), torch.tensor([2.0, 2.0, 0.0, 50.0]))
    assert found.tolist() == pytest.approx([0.0, 2.8, 3.5 * (5 - 0.2), 0.0], abs=1e-5)


def test_image_tokens_are_compared_with_the_nearest_support_of_a_class() -> None:
    def token(one: object, x: float, y: float) -> object:
        vector = torch.tensor([x, y]) / math.hypot(x, y)
        return replace(one, features=replace(one.features, token=vector))  # type: ignore[attr-defined,type-var]

    grid = row((1, 0), (0, 1))
    first, second = support(grid, [1, 0], [0, 0]), support(grid, [1, 0], [0, 1])
    supports = [token(first, 1, 0), token(second, 1, 1)]
    query = replace(grid, token=torch.tensor([0.0, 1.0]))
    half = math.sqrt(0.5)
    assert token_cosines(supports, query).tolist() == pytest.approx([half, half])  # type: ignore[arg-type]
    assert token_cosines(supports[:1], query).tolist() == [0, 0]  # type: ignore[arg-type]
    assert token_cosines([first, second], query).tolist() == [0, 0] == token_cosines(supports, grid).tolist()  # type: ignore[arg-type]


def test_classes_that_an_image_shows_together_do_not_compete() -> None:
    grid = row((1, 0), (0, 1), (1, 1))
    both, third = support(grid, [1, 0, 0], [0, 1, 0], [0, 0, 0]), support(grid, [0, 0, 0], [0, 0, 0], [0, 0, 1])
    assert exclusive_pairs([both, third]).tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def test_the_model_counts_as_far_as_the_prior_has_weight() -> None:
    prior = strange_prior()
    model = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -0.7])
    fitted = Learned(prior.facts, dict(prior.tensors) | {"presence": model})
    query = random_support(7).features
    for weight in (0.0, 0.5, 1.0):
        for learned in (prior, fitted):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(auto, "prior_weight", lambda *_, weight=weight: weight)
                task = auto.Task(("a", "b"), tuple(areas(20, 20, ways=2)), SPEC, None, learned)
            logits = task.score(query)
            cues = task.presence_cues(query, logits)
            alike = alike_log_odds(cues[:, 0], task.fitted.left_out.top_k_log_ratios)
            share = weight if learned is fitted else 0.0
            expected = (1 - share) * alike + share * photograph_log_odds(cues, model)
            torch.testing.assert_close(task.presence(query, logits).logit(), expected, atol=1e-4, rtol=1e-4)


def test_the_threshold_is_a_setting_and_a_half() -> None:
    supports = tuple(areas(20))
    assert auto.Task(("a",), supports, SPEC).presence_threshold == 0.5
    assert auto.Task(("a",), supports, SPEC, auto.Settings(presence_threshold=0.6)).presence_threshold == 0.6
    assert auto.Task(("a",), supports, SPEC, auto.Settings(presence=False)).presence_threshold == 0.5
