"""Numbers that somebody worked out with a pencil: features of two dimensions, grids of a few cells."""

import math

import pytest
import torch

from kshot.methods import density, prototype
from tests.golden.hand import ORIGIN, row, support


def test_prototype_is_20_times_the_difference_of_cosines() -> None:
    task = prototype.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), ORIGIN)
    scores = task.score(row((1, 0), (0, 1), (0.6, 0.8)))
    assert scores[0].tolist() == [[0, 0, 0]]
    assert scores[1, 0].tolist() == pytest.approx([20, -20, 20 * (0.6 - 0.8)])


def test_prototype_weighs_cells_by_their_part() -> None:
    """Half of the second cell is class: prototypes (1, .5) and (0, .5), so (2, 1) / sqrt 5 and (0, 1)."""
    task = prototype.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0.5]),), ORIGIN)
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(20 * (2 / math.sqrt(5) - 0), rel=1e-5)


def test_prototypes_of_two_ways_share_the_background() -> None:
    features = row((1, 0), (0, 1), (-1, 0))
    task = prototype.Task(("a", "b"), (support(features, [1, 0, 0], [0, 1, 0]),), ORIGIN)
    scores = task.score(row((0.8, 0.6)))
    assert scores[:, 0, 0].tolist() == pytest.approx([0, 20 * (0.8 + 0.8), 20 * (0.6 + 0.8)], rel=1e-5)


def one_estimate(**changes: float) -> density.Settings:
    return density.Settings(**({"kappa": 2.0, "share": 0.0, "pool": 1} | changes))


def test_density_is_the_log_ratio_of_kernels() -> None:
    """One cell each: kappa (cos to the class - cos to the background) = 2 (1 - 0)."""
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), ORIGIN, one_estimate())
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(2, abs=1e-5)
    assert float(task.score(row((0.6, 0.8)))[1, 0, 0]) == pytest.approx(2 * (0.6 - 0.8), abs=1e-5)


def test_density_does_not_count_cells() -> None:
    """Three background cells alike count as one."""
    task = density.Task(("c",), (support(row((1, 0), *[(0, 1)] * 3), [1, 0, 0, 0]),), ORIGIN, one_estimate())
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(2, abs=1e-5)


def test_density_thins_background_and_keeps_its_weight() -> None:
    """Eight background cells, four like (0, 1) and four like (-1, 0) by turns: every second one says the same."""
    cells = row((1, 0), *[(0, 1), (0, 1), (-1, 0), (-1, 0)] * 2)
    masks = [1.0, *[0.0] * 8]
    whole, thin = (density.Task(("c",), (support(cells, masks),), ORIGIN, one_estimate(background=n)) for n in (8, 2))
    assert len(whole.fitted.tokens) == 9 and len(thin.fitted.tokens) == 5
    query = row((0.6, 0.8))
    torch.testing.assert_close(whole.score(query), thin.score(query))


def test_density_passes_over_what_is_ignored() -> None:
    """The third cell would pull the background to (1, 0); ignored, it does not."""
    features = row((1, 0), (0, 1), (1, 0))
    task = density.Task(("c",), (support(features, [1, 0, 0], known=[1, 1, 0]),), ORIGIN, one_estimate())
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(2, abs=1e-5)


def test_density_averages_over_alike_cells() -> None:
    """Two cells at a right angle, affinity ln 3: weights 3 : 1, ratios 2 and -2, so 1 and -1."""
    settings = one_estimate(affinity=math.log(3))
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), ORIGIN, settings)
    assert task.score(row((1, 0), (0, 1)))[1, 0].tolist() == pytest.approx([1, -1], abs=1e-5)


def test_density_averages_over_pooled_cells() -> None:
    """The same two cells pooled: one key between them, so both get the mean of 2 and -2."""
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), ORIGIN, one_estimate(pool=2))
    assert task.score(row((1, 0), (0, 1)))[1, 0].tolist() == pytest.approx([0, 0], abs=1e-5)


def test_density_second_estimate() -> None:
    """One cell, first ratio 2; its labels are 1 / (1 + e^7) and the rest, and so are the masses."""
    settings = density.Settings(kappa=2.0)
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), ORIGIN, settings)
    background = 1 / (1 + math.exp(7))
    shares = [0.5 * mass / (mass + 40) for mass in (background, 1 - background)]
    densities = [(1 - s) * d + s for s, d in zip(shares, (math.exp(-2), 1.0), strict=True)]
    expected = math.log(densities[1] / densities[0])
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(expected, abs=1e-4)
