"""The losses of fine-tuning: what a perfect encoder and a blind one get, and agreement with the method itself."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods import density
from kshot.methods.base import FeatureSpec, Support
from kshot.ops.geometry import FeatureMap, Frame
from kshot.training.density_loss import GridLabels, density_losses, grid_labels, token_loss

SIDE = 6


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def scene(images: int, classes: int, noise: float) -> tuple[Tensor, GridLabels]:
    """Tokens near one of 1 + classes directions, by what each patch shows; the last image shows background alone."""
    torch.manual_seed(0)
    shown = torch.randint(0, classes + 1, (images, SIDE * SIDE))
    shown[-1] = 0
    tokens = F.normalize(torch.eye(8)[shown] + noise * torch.randn(images, SIDE * SIDE, 8), dim=2)
    labels = torch.stack([(shown == c).float() for c in range(1, classes + 1)], 1)
    return tokens, GridLabels(labels, torch.ones(images, SIDE * SIDE))


def test_labels_on_the_grid_count_pixels() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, :2, :2] = torch.tensor([[1, 1], [1, 2]])
    labels[0, 2:, 2:] = 255
    found = grid_labels(labels, (1, 2), 2)
    assert found.classes[0].tolist() == [[0.75, 0, 0, 0], [0.25, 0, 0, 0]]
    assert found.valid[0].tolist() == [1, 1, 1, 0]


def test_features_that_tell_classes_apart_cost_less() -> None:
    sharp, blurred, blind = (
        density_losses(*_made, rng()) for _made in (scene(5, 2, 0.05), scene(5, 2, 0.6), scene(5, 2, 50.0))
    )
    for name in ("binary", "dice", "ways"):
        one, two, three = (float(getattr(found, name)) for found in (sharp, blurred, blind))
        assert one < two < three
    assert float(sharp.dice) < 0.05


def test_every_image_is_a_query_for_every_other() -> None:
    tokens, grid = scene(5, 2, 0.3)
    found = density_losses(tokens, grid, rng())
    # Four images show both classes: each is a support for the four others; two pairs a class leave three queries each.
    assert found.episodes == 2 * (4 * 4) + 2 * 2 * 3


def test_a_gradient_reaches_every_image_and_makes_the_loss_smaller() -> None:
    tokens, grid = scene(4, 2, 0.6)
    moved = tokens.clone().requires_grad_()
    before = density_losses(moved, grid, rng())
    (before.binary + before.dice).backward()
    assert moved.grad is not None and bool((moved.grad.abs().sum((1, 2)) > 0).all())
    after = density_losses(F.normalize(tokens - 0.5 * moved.grad, dim=2), grid, rng())
    assert float(after.binary + after.dice) < float(before.binary.detach() + before.dice.detach())


def test_a_batch_in_which_no_class_is_large_enough_teaches_nothing() -> None:
    tokens, grid = scene(3, 1, 0.3)
    moved = tokens.clone().requires_grad_()
    found = density_losses(moved, GridLabels(grid.classes * 0.01, grid.valid), rng())
    loss = found.binary + found.dice + found.ways
    loss.backward()
    assert found.episodes == 0 and float(loss.detach()) == 0
    assert moved.grad is not None and not bool(moved.grad.any())


def test_unlabelled_patches_teach_nothing() -> None:
    tokens, grid = scene(4, 1, 0.4)
    valid = grid.valid.clone()
    valid[:, :6] = 0
    masked = GridLabels(grid.classes * valid[:, None], valid)
    moved = tokens.clone().requires_grad_()
    found = density_losses(moved, masked, rng())
    (found.binary + found.dice).backward()
    flipped = GridLabels(masked.classes, valid)
    torch.testing.assert_close(density_losses(tokens, flipped, rng()).binary, found.binary.detach())
    assert moved.grad is not None


@pytest.mark.parametrize("classes", [1, 2])
def test_it_reads_features_as_the_method_does(classes: int) -> None:
    """The one-shot loss of one query and support is that of `density`'s logits, without pooling and self support."""
    tokens, grid = scene(2, classes, 0.5)
    grid = GridLabels(grid.classes, grid.valid)
    shown = [way for way in range(classes) if float(grid.classes[0, way].sum()) > 2]
    losses = []
    frame = Frame((SIDE * 16, SIDE * 16), (SIDE * 16, SIDE * 16), 16)
    spec = FeatureSpec("toy", "a" * 64, (), SIDE * 16, 16)
    for way in shown:
        maps = [FeatureMap(t.T.reshape(-1, SIDE, SIDE), frame, identity="a" * 64) for t in tokens]
        support = Support(maps[0], grid.classes[0, way].view(1, SIDE, SIDE), torch.ones(SIDE, SIDE))
        settings = density.Settings(self_support_weight=0.0, pool=1)
        logits = density.Task(("x",), (support,), spec, settings).score(maps[1])[1].flatten()
        target = grid.classes[1, way]
        losses.append(F.binary_cross_entropy_with_logits(logits, target))
    found = density_losses(tokens, grid, rng())
    assert found.episodes == len(shown)
    torch.testing.assert_close(found.binary, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_image_tokens_of_one_class_shall_be_near() -> None:
    shows = torch.tensor([[9.0, 0], [9, 0], [0, 9], [0, 9], [0, 0]])
    grid = GridLabels(shows[..., None], torch.ones(5, 1))
    near, far = torch.eye(8)[[0, 0, 1, 1, 2]], torch.eye(8)[[0, 1, 0, 1, 2]]
    assert float(token_loss(near, grid)) < 0.01 < 2 < float(token_loss(far, grid))
    alone = GridLabels(shows[:2, :, None], torch.ones(2, 1))
    assert float(token_loss(near[:2], alone)) == 0  # no other class to tell it from
