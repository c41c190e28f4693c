"""Mixture and regions, and the clustering under them: counted by hand, and laws of expectation maximisation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.methods import mixture, regions
from kshot.ops.clustering import agglomerate, group_means, vmf_mixture
from tests.support.hand import SPEC, random_support, row, support


def test_one_prototype_each_is_a_difference_of_cosines() -> None:
    chosen = mixture.Settings(prototypes=1, kappa=2)
    task = mixture.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, chosen)
    scores = task.score(row((1, 0), (0.6, 0.8)))
    assert scores[0].tolist() == [[0, 0]]
    assert scores[1, 0].tolist() == pytest.approx([2, 2 * (0.6 - 0.8)], abs=1e-5)


def test_two_opposite_prototypes() -> None:
    """A class to the left and to the right, the background above: log((e^2 + e^-2) / 2) - 0 to the right."""
    task = mixture.Task(
        ("c",),
        (support(row((1, 0), (-1, 0), (0, 1)), [1, 1, 0]),),
        SPEC,
        mixture.Settings(prototypes=2, kappa=2),
    )
    assert float(task.score(row((1, 0)))[1, 0, 0]) == pytest.approx(math.log(math.cosh(2)), abs=1e-5)
    assert float(task.score(row((0, 1)))[1, 0, 0]) == pytest.approx(-2, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), components=st.integers(1, 6), kappa=st.floats(0.5, 40))
def test_the_likelihood_never_falls(seed: int, components: int, kappa: float) -> None:
    tokens = random_support(seed).features.tokens
    weights = torch.rand(len(tokens), generator=torch.Generator().manual_seed(seed))
    found = vmf_mixture(tokens, weights, components, kappa, 12)
    assert (found.log_likelihood.diff() >= -1e-4).all()
    assert torch.allclose(found.means.norm(dim=1), torch.ones(len(found.means)), atol=1e-5)


def test_a_mixture_does_not_know_the_order() -> None:
    tokens = random_support(3).features.tokens
    order = torch.randperm(len(tokens))
    one, two = (vmf_mixture(cells, torch.ones(len(cells)), 3, 20, 10).means for cells in (tokens, tokens[order]))
    assert torch.allclose((one @ two.T).amax(1), torch.ones(3), atol=1e-4)


def test_average_linkage_by_hand() -> None:
    """Distances .2, .4 and 1: the first two join, and the third is (.4 + 1) / 2 = .7 from them."""
    tokens = torch.tensor([(1.0, 0.0), (0.8, 0.6), (0.0, 1.0)])
    near = agglomerate(tokens, 0.65, 10)
    assert near[0] == near[1] != near[2]
    assert agglomerate(tokens, 0.75, 10).unique().tolist() == [0]
    assert group_means(tokens, near)[near[0]].tolist() == pytest.approx([0.9, 0.3])


def test_linkage_of_some_speaks_for_all() -> None:
    tokens = torch.tensor([(1.0, 0.0), (0.0, 1.0)]).repeat_interleave(50, 0)
    groups = agglomerate(tokens, 0.4, 10)
    assert len(groups[:50].unique()) == len(groups[50:].unique()) == 1 and groups[0] != groups[99]


def test_regions_of_two_cells() -> None:
    """The left cell is the seed: its ratio is 2, its vote 1. The right one's vote is 0 + .2 of 1.2, its likeness 0."""
    task = regions.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC, hand_settings())
    scores = task.score(row((1, 0), (0, 1)))
    assert scores[0].tolist() == [[0, 0]]
    assert scores[1, 0].tolist() == pytest.approx([2 - 0.5, -2 - math.log(6) - math.log(1000) - 0.5], abs=1e-4)


def hand_settings() -> regions.Settings:
    return regions.Settings(
        kappa=2, query_distance=0.6, region_weight=0.5, seed_power=1, vote_power=1, vote_floor=0.2, threshold=0.5
    )


def test_a_threshold_that_is_good_enough_stays() -> None:
    """Two supports alike: each is found without a mistake by any threshold from -6 to 2, so the default stands."""
    pair = tuple(support(row((1, 0), (0, 1)), [1, 0]) for _ in range(2))
    assert regions.Task(("c",), pair, SPEC, hand_settings()).fitted.threshold == pytest.approx(0.5)


def test_a_threshold_is_calibrated_on_what_was_left_out() -> None:
    """Both supports hold a look-alike that is no part of the class, but lies above zero.

    Only thresholds between the two cut between them; of those that are tried the one nearest to zero is taken, and
    two supports that were left out weigh as much as the default, zero, does with a prior of two.
    """
    cells = row((1, 0), (0.96, 0.28), (0, 1))
    pair = tuple(support(cells, [1, 0, 0]) for _ in range(2))
    chosen = regions.Settings(
        kappa=2,
        threshold_prior_weight=2,
        region_weight=0,
        query_distance=0.6,
        seed_power=0,
        vote_power=0,
        hard_weight=0,
        threshold=0,
        support_distance=0.01,
    )
    fitted = regions.Task(("c",), pair, SPEC, chosen).fitted
    ratios = regions._readout(fitted.model, cells, chosen)[0, 0]
    passing = [t for t in (x / 4 for x in range(-24, 25)) if float(ratios[1]) <= t < float(ratios[0])]
    assert fitted.threshold == pytest.approx(min(passing, key=abs) / 2)
