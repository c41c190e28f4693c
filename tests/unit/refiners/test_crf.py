"""The mean field beside loops over pixels and places, as the formula says it."""

import numpy as np
import torch

from kshot.refiners import crf
from kshot.refiners.crf import Settings


def by_loops(unary: np.ndarray, colours: np.ndarray, cells: list[int], chosen: Settings) -> np.ndarray:
    """Equation 3 of the paper: Potts' compatibility, two normalised kernels, one plane of classes at a time."""
    ways, (_, height, width) = len(unary), colours.shape
    q = np.exp(np.concatenate([np.zeros((1, height * width)), unary]))
    q /= q.sum(0)
    field = {}
    for _ in range(chosen.steps):
        for cell in cells:
            energy = np.concatenate([[0.0], unary[:, cell]])
            for sigma, reach, beta, weight in (
                (chosen.alpha, 3, chosen.beta, chosen.bilateral),
                (chosen.gamma, 2, None, chosen.smoothing),
            ):
                spacing, votes, total = max(1, round(2 * sigma / reach)), np.zeros(ways + 1), 0.0
                for i in range(-reach, reach + 1):
                    for j in range(-reach, reach + 1):
                        if not 0 < i * i + j * j <= (reach + 0.5) ** 2:
                            continue
                        y = min(max(cell // width + spacing * i, 0), height - 1)
                        x = min(max(cell % width + spacing * j, 0), width - 1)
                        k = np.exp(-(spacing**2) * (i * i + j * j) / (2 * sigma**2))
                        if beta is not None:
                            apart = colours[:, y, x] - colours[:, cell // width, cell % width]
                            k *= np.exp(-(apart**2).sum() / (2 * beta**2))
                        votes, total = votes + k * q[:, y * width + x], total + k
                # Disagreement costs: the probability that a neighbour is of any other class.
                energy = energy - weight * (total - votes) / total
            field[cell] = energy
        for cell in cells:
            weights = np.exp(field[cell] - field[cell].max())
            q[:, cell] = weights / weights.sum()
    return np.stack([field[cell][1:] - field[cell][0] for cell in cells], 1)


def test_the_mean_field_is_the_papers() -> None:
    chosen = Settings(alpha=4, beta=40, gamma=1.5, steps=3)
    colours = torch.rand(3, 7, 9) * 255
    unary = torch.randn(2, 63)
    cells = torch.tensor([0, 8, 20, 31, 32, 40, 62])
    found = crf._mean_field(unary, cells, crf._links(colours, cells, 1.0, chosen), chosen)
    ways = [np.asarray(t, np.float64) for t in (unary, colours)]
    # The formula keeps each class's own votes; against the background both sides differ by the same total.
    expected = by_loops(*ways, cells.tolist(), chosen)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_far_from_the_decision_nothing_changes() -> None:
    from kshot.ops.geometry import Frame, to_pixels

    frame = Frame((160, 160), (160, 160), 8)
    logits = torch.zeros(2, 20, 20)
    logits[1] = torch.where(torch.arange(20) < 10, 3.0, -3.0)
    picture = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    change = (crf.refine(logits, frame, picture, Settings()) - to_pixels(logits, frame)).abs()[1].amax(0)
    assert change[:56].max() == change[104:].max() == 0 and change[76:84].max() > 0
