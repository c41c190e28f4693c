"""Presence of one class, and of classes that compete, counted by hand."""

import math
from dataclasses import replace

import pytest
import torch

from kshot.io.tensor_file import Learned
from kshot.methods.auto import task as auto
from kshot.methods.auto.presence import (
    CUES,
    exclusive_pairs,
    left_out_log_odds,
    model_of,
    modelled_log_odds,
    presence_cues,
    token_cosines,
)
from tests.support.hand import SPEC, areas, random_support, row, strange_prior, support


def test_cues_are_those_that_are_named() -> None:
    """Two classes that compete and a third that does not, in the order of `CUES`."""
    exclusive = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    found = presence_cues(
        torch.tensor([4.0, 1.0, 2.0]),
        torch.tensor([3.0, 9.0, 2.5]),
        torch.tensor([0.5, 0.75, 0.25]),
        torch.tensor([1.0, math.e, 0.0]),
        exclusive,
    )
    assert found.shape == (3, len(CUES))
    expected = [
        [4.0, 1.0, 0.5, 0.0, 1.0, 3.0, -0.25],
        [1.0, -4.0, 0.75, 1.0, 1.0, -3.0, 0.25],
        [2.0, -0.5, 0.25, 0.0, 0.0, 0.0, 0.0],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_the_model_is_a_weighted_sum() -> None:
    cues = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 0, 0]])
    model = torch.tensor([0.5, 0, 0, 0, 0, 0, 1.0, -2.0])
    assert modelled_log_odds(cues, model).tolist() == [0.5 + 7 - 2, -2.0]


def test_without_a_model_a_fifth_of_the_usual_log_ratio_has_even_odds() -> None:
    """3.5 for each unit above; a usual log ratio counts as 0.2 at least and 5 at most."""
    found = left_out_log_odds(torch.tensor([0.4, 2.0, 1.0, 1.0]), torch.tensor([2.0, 2.0, 0.0, 50.0]))
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


def test_presence_is_that_of_the_model_where_there_is_one() -> None:
    prior, model = strange_prior(), torch.tensor([0.1, 0.2, 0.3, 0.1, 0.4, 0.5, 0.6, -0.7])
    facts, tensors = dict(prior.facts), dict(prior.tensors) | {"presence": model}
    fitted, of_other_cues = Learned(facts | {"cues": list(CUES)}, tensors), Learned(facts | {"cues": ["one"]}, tensors)
    assert model_of(None) is model_of(prior) is model_of(of_other_cues) is None
    query = random_support(7).features
    for learned in (prior, of_other_cues, fitted):
        task = auto.Task(("a", "b"), tuple(areas(20, 20, ways=2)), SPEC, None, learned)
        logits = task.score(query)
        cues = task.presence_cues(query, logits)
        if learned is fitted:
            expected = modelled_log_odds(cues, model)
        else:
            expected = left_out_log_odds(cues[:, 0], task.fitted.left_out.top_k_log_ratios)
        torch.testing.assert_close(task.presence(query, logits).logit(), expected, atol=1e-4, rtol=1e-4)


def test_the_threshold_is_a_setting_and_a_half() -> None:
    supports = tuple(areas(20))
    assert auto.Task(("a",), supports, SPEC).presence_threshold == 0.5
    assert auto.Task(("a",), supports, SPEC, auto.Settings(presence_threshold=0.6)).presence_threshold == 0.6
    assert auto.Task(("a",), supports, SPEC, auto.Settings(presence=False)).presence_threshold == 0.5
