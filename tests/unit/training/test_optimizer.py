"""Muon's steps: what they are, and that the rest moves by AdamW."""

import pytest
import torch
from torch import nn

from kshot.training.optimizer import Muon, make_optimizer, orthogonalize


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_all_directions_of_a_matrix_move_alike(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(1.0, 0.05, min(shape))
    after = torch.linalg.svdvals(orthogonalize(left @ torch.diag(values) @ right))
    # The published coefficients trade exactness for speed: values end in this band.
    assert float(after.min()) > 0.5 and float(after.max()) < 1.3


def test_the_rest_moves_as_torchs_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    mine = Muon([{"params": list(ours.parameters()), "weight_decay": 0.1}], lr=0.01)
    foreign = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(5):
        inputs = torch.randn(4, 3)
        for model, optimizer in ((ours, mine), (theirs, foreign)):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_a_kernel_is_a_matrix_of_its_outputs() -> None:
    """From zero momentum the first step is the orthogonal gradient, times the rate, and no larger for larger losses."""
    for size in (1.0, 1000.0):
        kernel = nn.Parameter(torch.zeros(4, 2, 3, 3))
        torch.manual_seed(0)
        gradient = torch.randn(4, 2, 3, 3)
        kernel.grad = size * gradient
        Muon([{"params": [kernel], "muon": True}], lr=0.1).step()
        wanted = -0.1 * orthogonalize(gradient.reshape(4, 18)).reshape(4, 2, 3, 3)
        torch.testing.assert_close(kernel.detach(), wanted, atol=2e-3, rtol=0.05)


def test_inner_matrices_alone_take_orthogonal_steps() -> None:
    """Of a stem, a hidden layer and a head, all with biases, one matrix is inner."""

    class Small(nn.Module):
        input_and_output_layers = ("stem", "head")

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.hidden, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

    made = make_optimizer(Small(), 1e-3, 0.1, 10.0, {})
    rows = [(g["muon"], g["lr_multiplier"], g["weight_decay"], len(g["params"])) for g in made.param_groups]
    assert sorted(rows) == [(False, 1.0, 0.0, 3), (False, 1.0, 0.1, 2), (True, 10.0, 0.1, 1)]
