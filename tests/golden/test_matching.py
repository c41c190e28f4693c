"""Attention and matching: counted by hand, and beside torch's and scikit-learn's own."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from kshot.methods import attention, matching
from tests.support.hand import SPEC, random_support, row, support


def test_attention_is_a_difference_of_cosines_over_the_temperature() -> None:
    settings = attention.Settings(temperature=0.5, balance=0)
    task = attention.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, settings)
    scores = task.score(row((1, 0), (0.6, 0.8)))
    assert scores[0].tolist() == [[0, 0]]
    assert scores[1, 0].tolist() == pytest.approx([2, (0.6 - 0.8) / 0.5], abs=1e-5)


@pytest.mark.parametrize(("balance", "expected"), [(0, 2 - math.log(3)), (1, 2), (0.5, 2 - math.log(3) / 2)])
def test_attention_to_three_background_cells(balance: float, expected: float) -> None:
    """Three cells alike draw three times as much; all of it is taken out at balance 1, its root at one half."""
    settings = attention.Settings(temperature=0.5, balance=balance)
    task = attention.Task(("c",), (support(row((1, 0), *[(0, 1)] * 3), [1, 0, 0, 0]),), SPEC, settings)
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(expected, abs=1e-5)


def test_attention_of_two_ways_shares_the_background() -> None:
    features = row((1, 0), (0, 1), (-1, 0))
    settings = attention.Settings(temperature=1, balance=0)
    task = attention.Task(("a", "b"), (support(features, [1, 0, 0], [0, 1, 0]),), SPEC, settings)
    assert task.score(row((0.8, 0.6)))[:, 0, 0].tolist() == pytest.approx([0, 0.8 + 0.8, 0.6 + 0.8], abs=1e-5)


def test_attention_is_torchs_own() -> None:
    settings = attention.Settings(balance=0)
    supports = (random_support(0), random_support(1))
    query = random_support(2).features
    keys = torch.cat([s.features.tokens for s in supports])
    values = torch.cat([torch.stack([s.background, s.masks[0]], -1)[0] for s in supports])
    given = torch.nn.functional.scaled_dot_product_attention(
        query.tokens[None], keys[None], values[None], scale=1 / settings.temperature
    )[0]
    scores = attention.Task(("c",), supports, SPEC, settings).score(query)
    torch.testing.assert_close(scores[1, 0], (given[:, 1] / given[:, 0]).log(), atol=1e-3, rtol=1e-3)


def plain(**changes: float) -> matching.Settings:
    return matching.Settings(**({"balance": 0, "mutual_weight": 1, "smoothing": 0} | changes))


def test_one_neighbour_decides_up_to_the_smoothing() -> None:
    task = matching.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, plain(neighbours=1, smoothing=0.01))
    expected = [math.log(1.01 / 0.01), -math.log(1.01 / 0.01)]
    assert task.score(row((1, 0), (0, 1)))[1, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_votes_of_mutual_neighbours_count_three_times() -> None:
    """Cosines 1, .8, 0 with the class's cell and .6, .96, .8 with the background's.

    The two nearest query cells of the first are the left and the middle, of the second the middle and the right.
    """
    task = matching.Task(
        ("c",),
        (support(row((1, 0), (0.6, 0.8)), [1, 0]),),
        SPEC,
        plain(neighbours=2, temperature=1, mutual_weight=3),
    )
    expected = [0.4 + math.log(3), 0.8 - 0.96, -0.8 - math.log(3)]
    assert task.score(row((1, 0), (0.8, 0.6), (0, 1)))[1, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_neighbours_are_scikit_learns() -> None:
    settings = plain(neighbours=30, temperature=0.1, smoothing=0.01)
    supports, query = (random_support(0), random_support(1)), random_support(2).features
    tokens = torch.cat([s.features.tokens for s in supports]).numpy()
    labels = torch.cat([s.masks[0, 0] for s in supports]).numpy()
    distances, which = NearestNeighbors(n_neighbors=30, metric="cosine").fit(tokens).kneighbors(query.tokens.numpy())
    weights = np.exp((1 - distances) / 0.1)
    votes = (weights * labels[which]).sum(1) / weights.sum(1)
    expected = np.log((votes + 0.01) / (1 - votes + 0.01))
    scores = matching.Task(("c",), supports, SPEC, settings).score(query)
    np.testing.assert_allclose(scores[1, 0].numpy(), expected, atol=1e-3)
