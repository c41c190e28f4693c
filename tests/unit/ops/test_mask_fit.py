import torch

from kshot.ops.geometry import Frame, patch_centres
from kshot.ops.mask_fit import contrast, peaks


def test_contrast_is_a_correlation() -> None:
    scores = torch.tensor([[40.0, 40.0, -40.0, -40.0]])
    part = torch.ones(1, 4)
    assert abs(contrast(scores, torch.tensor([[1, 1, 0, 0]]), part) - 1) < 1e-5
    assert abs(contrast(scores, torch.tensor([[0, 0, 1, 1]]), part) + 1) < 1e-5
    assert abs(contrast(scores, torch.tensor([[1, 0, 1, 0]]), part)) < 1e-5
    # Half of what is there: sqrt(1/3).
    assert abs(contrast(scores, torch.tensor([[1, 0, 0, 0]]), part) - (1 / 3) ** 0.5) < 1e-5


def test_nothing_and_everything_have_no_contrast() -> None:
    scores, part = torch.randn(3, 3), torch.ones(3, 3)
    assert contrast(scores, torch.zeros(3, 3), part) == contrast(scores, torch.ones(3, 3), part) == 0.0


def test_padding_does_not_count() -> None:
    scores, part = torch.tensor([[40.0, -40.0, 40.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert abs(contrast(scores, torch.tensor([[1, 0, 0]]), part) - 1) < 1e-5


def test_peaks_are_local_and_finite() -> None:
    scores = torch.tensor([[3.0, 2.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    assert peaks(scores, 2).tolist() == [[0, 3], [0, 0]]
    assert peaks(torch.where(scores == 4, -torch.inf, scores), 1).tolist() == [[0, 0]]
    assert peaks(torch.full((2, 2), -torch.inf), 3).shape == (0, 2)


def test_centres_of_cells_lie_in_the_image() -> None:
    """20 x 36 pixels at half the size: 10 x 18, in cells of 8; the last ones hold two pixels, 8 and 9, 16 and 17."""
    centres = patch_centres(Frame((20, 36), (10, 18), 8))
    assert tuple(centres.shape) == (2, 3, 2)
    assert centres[0, 0].tolist() == [8, 8]
    assert centres[1, 2].tolist() == [35, 19]
    for row in range(2):
        for column in range(3):
            x, y = centres[row, column].tolist()
            assert Frame((20, 36), (10, 18), 8).patch_at(x, y) == (row, column)
