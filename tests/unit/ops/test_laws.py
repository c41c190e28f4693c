"""Presence, similarity, pooling and regions."""

import numpy as np
import pytest
import torch

from kshot.ops.components import count_components
from kshot.ops.geometry import Frame
from kshot.ops.pooling import masked_average, stack_tokens
from kshot.ops.presence import presence
from kshot.ops.similarity import cosines, vmf_means

FRAME = Frame((80, 80), (80, 80), 8)


def test_one_lucky_cell_is_not_an_object() -> None:
    logits = torch.full((2, 10, 10), -4.0)
    logits[0] = 0
    logits[1, 4, 4] = 6
    assert float(presence(logits, FRAME)[0]) < 0.6
    logits[1, 4:6, 4:6] = 6
    assert float(presence(logits, FRAME)[0]) > 0.95


def test_presence_of_nothing_is_near_zero_and_of_all_near_one() -> None:
    logits = torch.stack([torch.zeros(10, 10), torch.full((10, 10), -8.0), torch.full((10, 10), 8.0)])
    assert presence(logits, FRAME).tolist() == pytest.approx([0, 1], abs=1e-2)


def test_presence_works_on_a_single_cell() -> None:
    assert float(presence(torch.tensor([[[0.0]], [[0.0]]]), Frame((4, 4), (8, 8), 8))[0]) == pytest.approx(0.5)


def test_blocks_change_nothing() -> None:
    queries, supports = (torch.nn.functional.normalize(torch.randn(n, 8), dim=1) for n in (23, 17))
    whole = torch.cat(list(cosines(queries, supports, 5)))
    torch.testing.assert_close(whole, queries @ supports.T)


def test_a_class_without_weight_has_no_density() -> None:
    queries, supports = torch.eye(3), torch.eye(3)
    found = vmf_means(queries, supports, torch.tensor([[1.0, 0], [0, 0], [0, 0]]), 2.0)
    assert found[:, 0].tolist() == pytest.approx([1, np.exp(-2), np.exp(-2)]) and found[:, 1].tolist() == [0, 0, 0]


def test_masked_average_has_unit_length_or_is_zero() -> None:
    tokens = torch.tensor([[3.0, 0], [0, 4.0]])
    weights = torch.tensor([[1.0, 0], [0, 0]])
    assert masked_average(tokens, weights).tolist() == [[1, 0], [0, 0]]


def test_stacking_joins_grids_of_different_shape() -> None:
    assert tuple(stack_tokens([torch.zeros(2, 3, 4), torch.zeros(2, 5, 1)]).shape) == (2, 17)


def test_components_are_counted_per_class() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[2:10, 2:10] = 1
    mask[10:16, 10:16] = 1  # touches the first at a corner
    mask[30:36, 2:10] = 1
    mask[20:26, 20:26] = 2
    mask[38, 38] = 2
    assert count_components(mask) == {1: 2, 2: 2}
    assert count_components(np.zeros((4, 4), np.uint8)) == {}
    assert count_components(np.repeat([[2, 2, 1]], 9, axis=0).astype(np.uint8)) == {1: 1, 2: 1}
