"""The learnable parts of methods, and their losses, counted by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import kshot
from kshot.errors import SettingError
from kshot.methods.base import Support
from kshot.methods.prototype import project
from kshot.ops.geometry import FeatureMap, Frame
from kshot.training.episode_batches import Example
from kshot.training.episodic_heads import (
    PatchLogits,
    alignment,
    cross_entropy,
    make_head,
    patch_logits,
    presence_weights,
)
from kshot.training.episodic_recipes import RECIPES
from kshot.training.episodic_training import EpisodicLearner
from tests.support.disc_episodes import example, train_head

FRAME = Frame((8, 32), (8, 32), 8)  # one row of four cells


def marked(vectors: list[list[float]], mask: list[float], known: tuple[float, ...] = (1, 1, 1, 1)) -> Support:
    features = F.normalize(torch.tensor(vectors, dtype=torch.float32), dim=1).T.reshape(-1, 1, 4)
    return Support(
        FeatureMap(features, FRAME),
        torch.tensor(mask, dtype=torch.float32).reshape(1, 1, 4),
        torch.tensor(known, dtype=torch.float32).reshape(1, 4),
    )


def test_weights_by_presence_are_those_counted_by_hand() -> None:
    # Three cells of background and one of the class, so shares 3/4 and 1/4; nothing shows the third class.
    targets = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    # power 1: 4/3 and 4, whose mean over what is labelled is 3/4 * 4/3 + 1/4 * 4 = 2.
    torch.testing.assert_close(presence_weights(targets, 1.0), torch.tensor([2 / 3, 2.0, 0.0]))
    torch.testing.assert_close(presence_weights(targets, 0.0), torch.tensor([1.0, 1.0, 0.0]))


def test_weighted_cross_entropy_is_the_one_counted_by_hand() -> None:
    # The class gets 3/4 in each cell: -log 1/4 on three background cells, -log 3/4 on its own.
    logits = torch.tensor([[0.0, math.log(3)]]).expand(4, 2)
    targets = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    wrong, right = math.log(4), math.log(4 / 3)
    plain = (3 * wrong + right) / 4
    balanced = (wrong + right) / 2  # each class counts the same
    assert float(cross_entropy([PatchLogits(logits, targets)], 0.0)) == pytest.approx(plain)
    assert float(cross_entropy([PatchLogits(logits, targets)], 1.0)) == pytest.approx(balanced)


def test_presence_is_that_of_the_whole_batch_and_ignored_cells_count_nothing() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    ground, own, ignored = (torch.tensor([row]) for row in ([1.0, 0.0], [0.0, 1.0], [0.0, 0.0]))
    wild = torch.tensor([[0.0, 50.0]])
    parts = [
        PatchLogits(logits.expand(3, 2), ground.expand(3, 2)),
        PatchLogits(logits, own),
        PatchLogits(wild, ignored),
    ]
    assert float(cross_entropy(parts, 1.0)) == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)
    assert float(cross_entropy([PatchLogits(wild, ignored)], 1.0)) == 0.0


def test_alignment_segments_the_support_by_what_was_found_in_the_query() -> None:
    """The class is (1, 0), the background (0, 1); the query was segmented rightly, so cosines are 1 and 0."""
    query = marked([[1, 0], [1, 0], [0, 1], [0, 1]], [1, 1, 0, 0])
    support = marked([[1, 0], [0, 1], [0, 1], [0, 1]], [1, 0, 0, 0])
    found = torch.zeros(2, 1, 4)
    found[1, 0] = torch.tensor([5.0, 5, -5, -5])
    (cells,) = alignment([support], query, found, 2.0)
    torch.testing.assert_close(cells.logits, torch.tensor([[0.0, 2], [0, -2], [0, -2], [0, -2]]))
    # Each cell is right by a margin of 2: -log sigmoid(2) everywhere, whatever the weights.
    assert float(cross_entropy([cells], 1.0)) == pytest.approx(math.log1p(math.exp(-2)), rel=1e-5)


def test_alignment_skips_ways_that_were_not_found_and_ignored_cells() -> None:
    query = marked([[1, 0], [1, 0], [0, 1], [0, 1]], [1, 1, 0, 0], known=(0, 1, 1, 1))
    support = marked([[1, 0], [0, 1], [0, 1], [0, 1]], [1, 0, 0, 0])
    assert alignment([support], query, torch.zeros(2, 1, 4), 2.0) == []
    found = torch.zeros(2, 1, 4)
    found[1, 0, 0] = 5.0  # only where nothing is labelled
    assert alignment([support], query, found, 2.0) == []


def test_alignment_has_a_gradient_for_the_projection_alone() -> None:
    query = marked([[1, 0.2], [1, 0.1], [0, 1], [0.3, 1]], [1, 1, 0, 0])
    support = marked([[1, 0.5], [0, 1], [0.2, 1], [0, 1]], [1, 0, 0, 0])
    weight: Tensor = torch.eye(2, requires_grad=True)
    found = torch.zeros(2, 1, 4)
    found[1, 0] = torch.tensor([5.0, 5, -5, -5])
    seen = [replace(each, features=project(each.features, weight)) for each in (support, query)]
    cross_entropy(alignment(seen[:1], seen[1], found, 2.0), 1.0).backward()
    assert weight.grad is not None and float(weight.grad.abs().sum()) > 0


def test_cells_of_several_classes_count_in_part() -> None:
    shown = marked([[1, 0], [1, 0], [0, 1], [0, 1]], [0.25, 0, 0, 0], known=(0.5, 1, 1, 0))
    torch.testing.assert_close(
        patch_logits(torch.zeros(2, 1, 4), shown).targets[[0, 3]], torch.tensor([[0.25, 0.25], [0, 0]])
    )


def test_steps_lower_the_loss_and_only_the_head_has_a_gradient(toy: kshot.Segmenter) -> None:
    torch.manual_seed(0)
    head, losses = train_head(toy, 10)
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert all(weight.grad is not None for name, weight in head.named_parameters() if "weigh" not in name)
    assert not toy.backbone.weight.requires_grad


def test_an_episode_whose_supports_show_nothing_teaches_nothing(toy: kshot.Segmenter) -> None:
    head = make_head("dense-comparison", 16, start="identity", width=8, cosines=True, seed=0)
    supports, query = example(toy, 0)
    blank = replace(supports[0], masks=torch.zeros_like(supports[0].masks))
    assert head.predict(Example((blank,), query), RECIPES["quick"]) == {"query": []}
    job = object.__new__(EpisodicLearner)
    job.model, job.recipe, job.device = head, RECIPES["quick"], torch.device("cpu")
    losses = job.losses([Example((blank,), query)])
    losses["loss"].backward()
    assert float(losses["loss"].detach()) == 0


def test_heads_that_cannot_be_made() -> None:
    with pytest.raises(kshot.errors.UnknownNameError, match="learnable method"):
        make_head("density", 16, start="identity", width=None, cosines=True, seed=0)
    with pytest.raises(SettingError, match="--start random"):
        make_head("prototype", 16, start="identity", width=8, cosines=True, seed=0)
    wide = make_head("prototype", 16, start="random", width=8, cosines=True, seed=0)
    assert tuple(wide.projection.weight.shape) == (8, 16)
