"""Cycle consistency from a query's mask to the support, on patches few enough to count."""

import pytest
import torch

from kshot.methods import density
from kshot.methods.auto import thresholds
from kshot.methods.auto.thresholds import _CYCLE_THRESHOLDS, CycleConsistency
from tests.support.hand import row, support

A, B = (1, 0), (0, 1)
PLAIN = density.Settings(affinity_sharpness=0.0, self_support_weight=0.0, pool=1)


@pytest.fixture(autouse=True)
def only_the_best_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "_CYCLE_INV_TEMPERATURE", 1e3)


def cycle(mask: list[int], penalty: float = 0.0) -> CycleConsistency:
    """With a support whose tokens are A, A, B, B."""
    return CycleConsistency(support(row(A, A, B, B), mask), 0, penalty, PLAIN)


@pytest.mark.parametrize(
    ("mask", "iou"),
    [
        ([1, 1, 0, 0], 1.0),  # finds both A
        ([1, 0, 0, 0], 1.0),  # half the density of A against a third of it: still both
        ([0, 0, 1, 1], 0.0),  # finds the background
        ([0, 0, 0, 0], 0.0),  # finds nothing
    ],
)
def test_what_a_mask_finds_in_the_support_is_counted(mask: list[int], iou: float) -> None:
    found = cycle([1, 1, 0, 0]).ious(row(A, A, B, B), torch.tensor(mask)[:, None])
    assert found.tolist() == pytest.approx([iou])


def test_the_threshold_is_the_mean_of_the_best() -> None:
    """With margins 0.6 and -0.9, those tried from -0.75 to 0.5 find the object; -1 takes all in, and 0.75 nothing."""
    margins = torch.tensor([[0.6, 0.6, -0.9, -0.9]])
    good = _CYCLE_THRESHOLDS[(_CYCLE_THRESHOLDS >= -0.75) & (_CYCLE_THRESHOLDS <= 0.5)]
    moved = cycle([1, 1, 0, 0]).threshold(row(A, A, B, B), margins)
    assert float(moved) == pytest.approx(float(good.mean()))
    dear = cycle([1, 1, 0, 0], penalty=1.0).threshold(row(A, A, B, B), margins)
    assert float(dear) == pytest.approx(0.0, abs=1e-6)


def test_masks_that_find_half_move_half_as_far() -> None:
    """All four cells are the object, and the query's mask is A up to 0.5 and nothing above: two of four are found."""
    moved = cycle([1, 1, 1, 1]).threshold(row(A, A, B, B), torch.tensor([[0.6, 0.6, -2.0, -2.0]]))
    assert float(moved) == pytest.approx(float(_CYCLE_THRESHOLDS[_CYCLE_THRESHOLDS <= 0.5].mean()) / 2)
