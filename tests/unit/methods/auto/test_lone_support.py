"""Whether a query looks like a lone support: the facts by hand, what photographs say of them, and what it changes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import kshot
from kshot.io.tensor_file import Learned
from kshot.methods import auto
from kshot.methods.auto.lone_support import LoneSupport, pairs_of_photographs, typicality, within
from kshot.ops.geometry import FeatureMap, Frame
from kshot.types import Shot
from tests.support.hand import SPEC, around

KAPPA = 2.0


def prior(*means: tuple[float, float], pairs: list[float] | None = None) -> Learned:
    facts = {"method": "density", "identity": "hand", "backbone": "hand"}
    tensors = {"means": torch.tensor(means).half(), "shares": torch.full((len(means),), 1 / len(means))}
    return Learned(facts, tensors if pairs is None else tensors | {"pairs": torch.tensor(pairs)})


def turned(angle: float) -> FeatureMap:
    """One row of forty cells that are all alike."""
    size = (8, 320)
    token = torch.tensor([math.cos(angle), math.sin(angle)])
    return FeatureMap(token[:, None, None].expand(2, 1, 40).contiguous(), Frame(size, size, 8), "hand")


def log_by_prior(angle: float) -> float:
    """Of a token at this angle under a prior of one mean (.5, 0)."""
    return KAPPA * (0.5 * math.cos(angle) - 1)


@pytest.mark.parametrize(("at", "query"), [(0.0, 0.0), (0.0, 0.7), (1.0, 0.3), (0.4, math.pi)])
def test_three_facts_of_a_support_and_a_query(at: float, query: float) -> None:
    one = prior((0.5, 0.0))
    shown = replace(around(40, turned=False), features=turned(at))
    found = LoneSupport(shown, one, KAPPA).facts(turned(query)).tolist()
    between = KAPPA * (math.cos(query - at) - 1) - log_by_prior(query)
    assert found == pytest.approx([-log_by_prior(at), between, math.cos(at) / 0.5], abs=2e-3)


def test_a_slide_predicts_itself_and_a_panorama_does_not() -> None:
    everything = prior((0.1, 0.0), (0.0, 0.1), (-0.1, 0.0), (0.0, -0.1))
    slide, panorama = (float(within(around(40, turned=turns), everything, 20.0)) for turns in (False, True))
    assert slide > 15 and panorama < 5


def test_photographs_say_what_is_usual() -> None:
    """Each makes a pair with the one next to it; the limit is what a tenth of pairs exceeds."""
    one, angles = prior((0.5, 0.0)), (0.0, 0.1, 0.4, 1.0, 1.15)
    photographs = [turned(angle) for angle in angles]
    nearest = (0.1, 0.0, 0.1, 1.15, 1.0)
    facts = torch.tensor(
        [
            [-log_by_prior(own), KAPPA * (math.cos(own - other) - 1) - log_by_prior(other), math.cos(own) / 0.5]
            for own, other in zip(angles, nearest, strict=True)
        ]
    )
    mean, spread = facts.mean(0), facts.std(0, correction=0)
    z = (facts - mean) / spread
    limit = (z[:, 0] + z[:, 1] + z[:, 2].clamp(max=0).abs()).quantile(0.9)
    found = pairs_of_photographs(photographs, one, KAPPA)
    torch.testing.assert_close(found, torch.cat([mean, spread, limit[None]]), atol=3e-3, rtol=0)


def test_one_photograph_is_compared_with_itself() -> None:
    assert bool(pairs_of_photographs([turned(0.3)], prior((0.5, 0.0)), KAPPA).isfinite().all())


def test_only_unusual_patches_count() -> None:
    """All else equal, a support more usual than photographs is no less alike; one that is less usual is more so."""
    pairs = [0.0, 0.0, 1.0, 1e6, 1e6, 0.1, 1.0]  # the first two facts tell next to nothing
    found = [
        float(
            LoneSupport(
                replace(around(40, turned=False), features=turned(angle)), prior((0.5, 0.0), pairs=pairs), 2.0
            ).likeness(turned(0.0))
        )
        for angle in (0.0, 1.0, 1.3)
    ]
    assert found == pytest.approx([0.0, 0.0, (1 - math.cos(1.3) / 0.5) / 0.1], abs=2e-2)


def test_typicality_is_relative_to_the_photographs_of_the_prior() -> None:
    assert float(typicality(turned(0.0), prior((0.5, 0.0)))) == pytest.approx(2, abs=1e-3)
    assert float(typicality(turned(math.pi / 2), prior((0.5, 0.0)))) == pytest.approx(0, abs=1e-3)


def test_each_query_has_what_is_fitted_for_it() -> None:
    """A query that looks like the support is scored without the prior, another with it."""
    usual = prior((0.1, 0.0), pairs=[0.0, 0.0, 0.0, 1e6, 0.1, 1e6, 0.0])  # the second fact alone decides
    shown = replace(around(40, turned=False), features=turned(0.0))
    task = auto.Task(("a",), (shown,), SPEC, None, usual)
    like, unlike = turned(0.1), turned(math.pi)
    assert [task.fitted_for(each).prior_weight for each in (like, unlike, like)] == [0.0, 1.0, 0.0]
    assert task.fitted_for(like) is task.fitted_for(turned(0.1)) and task.fitted_for(unlike) is task.fitted
    again = auto.Task(("a",), (shown,), SPEC, None, usual)
    for query in (unlike, like):  # in whatever order
        torch.testing.assert_close(again.score(query), task.score(query), rtol=0, atol=0)
    smoothed = [task.fitted_for(each).tasks[0].settings.affinity_sharpness > 0 for each in (like, unlike)]
    assert smoothed == [False, True]


def test_several_supports_and_a_backbone_without_a_prior_do_not_ask_the_query() -> None:
    shown = replace(around(40, turned=False), features=turned(0.0))
    for supports, learned in (((shown, shown), prior((0.5, 0.0))), ((shown,), None)):
        task = auto.Task(("a",), supports, SPEC, None, learned)
        assert task.fitted.lone is None and task.fitted_for(turned(0.0)) is task.fitted


def test_dark_lines_look_alike_and_a_garden_is_another_place() -> None:
    """With the shipped prior: another such drawing looks like the first, an even sky does not."""
    rng = np.random.default_rng(0)
    segmenter = kshot.Segmenter()

    def drawing() -> tuple[np.ndarray, np.ndarray]:
        image = rng.integers(150, 200, (160, 200, 3)).astype(np.uint8)
        mask = np.zeros((160, 200), np.uint8)
        mask[int(rng.integers(20, 140)) :][:3] = 1
        image[mask == 1] = 40
        return image, mask

    image, mask = drawing()
    task = segmenter.fit([Shot(image, mask=mask, label="line")])
    lone = task.fitted.lone
    sky = np.linspace((90, 140, 220), (200, 220, 250), 160).astype(np.uint8)[:, None].repeat(200, 1)
    assert lone.looks_like(segmenter.features(drawing()[0])) and not lone.looks_like(segmenter.features(sky))
