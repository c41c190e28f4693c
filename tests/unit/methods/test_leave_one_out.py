"""Leave-one-out: what is left out, what it is searched with, and what is found, counted by hand."""

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from kshot.methods import attention, density, matching
from kshot.methods._leave_one_out import (
    CANDIDATE_THRESHOLDS,
    EnsembleMember,
    HeldOutScores,
    LeaveOneOut,
    _held_out,
    _pool,
    _within_one_support,
    leave_one_out,
)
from kshot.methods._support_tokens import SupportTokens, top_k_log_ratio
from kshot.methods.base import Support
from kshot.ops.spread import evenly_spread
from tests.support.hand import SPEC, areas, row, support


def test_ious_at_each_threshold_are_counted() -> None:
    """Logits 0.6, 0.3, -0.3 over a mask of the first cell: 1/3 of all, 1/2 above zero, 1/1 above 0.5, none above 1."""
    found = _held_out(torch.tensor([[[0.6, 0.3, -0.3]]]), support(row((1, 0), (0, 1), (0, 1)), [1, 0, 0]), 0).ious[0]
    assert [float(found[CANDIDATE_THRESHOLDS.tolist().index(t)]) for t in (-0.5, 0.0, 0.5, 1.0)] == pytest.approx(
        [1 / 3, 1 / 2, 1, 0]
    )


def test_a_warning_names_a_support_by_its_place_among_all_that_were_given() -> None:
    right, wrong = torch.tensor([[3.0, -3.0]]), torch.tensor([[-3.0, 3.0]])
    mask, known = torch.tensor([1.0, 0.0]), torch.ones(2)
    scores = tuple(HeldOutScores(logits, mask, known) for logits in (right, right, wrong))
    found = LeaveOneOut(((0, 1, 2),), (scores,), torch.zeros(1))
    kept = [replace(each, number=number) for each, number in zip(areas(9, 8, 7), (2, 30, 71), strict=True)]
    for supports, place in ((kept, 71), (areas(9, 8, 7), 3)):
        (line,) = found.warnings(("disc",), supports)
        assert line.startswith(f"support {place} (disc)")


def test_each_patch_and_its_neighbourhood_are_left_out() -> None:
    """Class cells 0 and 4 of eight. Kernels are 1 within a side and e^-2 across; cells up to two away do not count.

    Cell 0 sees class 4, background 3, 5, 6, 7: log (1/2) / (4/6 e^-2); cell 4 sees 0 and 1, 7: log (1/2) / (2/6 e^-2).
    """
    features = row(*[(1, 0), (0, 1), (0, 1), (0, 1)] * 2)
    familiar = _within_one_support(support(features, [1, 0, 0, 0] * 2), 0, kappa=2.0, fraction=1 / 8)
    assert float(familiar) == pytest.approx(2 + math.log(1.5), abs=1e-4)


def test_the_top_k_log_ratio_is_that_of_the_best_patches() -> None:
    task = density.Task(("c",), (support(row((1, 0), (0, 1)), [1, 0]),), SPEC)
    query = row((1, 0), (0, 1), (0, 1), (0, 1))
    found = top_k_log_ratio(task.fitted, query, task.score(query), 0, fraction=0.25, kappa=2.0)
    assert float(found) == pytest.approx(2.0, abs=1e-4)


def test_an_object_of_one_patch_has_the_largest_log_ratio() -> None:
    familiar = _within_one_support(
        support(row((1, 0), *[(0, 1)] * 5), [1, 0, 0, 0, 0, 0]), 0, kappa=2.0, fraction=1 / 6
    )
    assert float(familiar) == 5


def test_at_most_so_many_supports_are_left_out() -> None:
    supports = [support(row((1, 0), (0, 1)), [1 - 0.01 * i, 0]) for i in range(7)]
    member = EnsembleMember(density.Task, density.Settings(), ("c",), SPEC)
    left_out = leave_one_out(supports, [member], max_supports=3, fraction=0.5, kappa=20.0)
    assert left_out.left_out == ((1, 4, 6),)  # from large to small


@pytest.mark.parametrize("shown", [(20, 14), (9, 20, 0, 7, 31), (20, 14, 31, 9, 0, 12, 28, 7, 25, 17)])
def test_up_to_ten_supports_of_one_class_are_searched_with_all_the_others(shown: tuple[int, ...]) -> None:
    supports = areas(*shown)
    chosen = ((density, density.Settings()), (attention, attention.Settings()), (matching, matching.Settings()))
    members = [EnsembleMember(module.Task, settings, ("c",), SPEC) for module, settings in chosen]
    left_out = leave_one_out(supports, members, max_supports=5, fraction=0.1, kappa=20.0)
    by_area = sorted((i for i in range(len(shown)) if shown[i]), key=lambda i: -shown[i])
    assert left_out.left_out[0] == tuple(by_area if len(by_area) <= 5 else [by_area[i] for i in (0, 2, 4, 6, 8)])
    for index, found in zip(left_out.left_out[0], left_out.scores[0], strict=True):
        rest, query = supports[:index] + supports[index + 1 :], supports[index].features
        logits = torch.stack([member.fit(rest).score(query)[1] for member in members])
        assert torch.equal(found.logits, logits.flatten(1))  # to the bit: published figures hang on it


def test_of_many_supports_those_left_out_are_of_all_sizes() -> None:
    supports = areas(*range(40, 0, -1))  # in order: 40 patches, 39, ... 1
    member = EnsembleMember(density.Task, density.Settings(), ("c",), SPEC)
    left_out = leave_one_out(supports, [member], max_supports=5, fraction=0.1, kappa=20.0)
    # Ten helpers in the middle of each tenth, and of them every second one.
    assert evenly_spread(range(40), 10) == (2, 6, 10, 14, 18, 22, 26, 30, 34, 38)
    assert left_out.left_out == ((6, 14, 22, 30, 38),)


def test_a_pool_has_those_that_show_the_class_most_and_then_empty_ones() -> None:
    supports = areas(5, 9, 0, 7, 0)
    assert _pool(supports, [1, 3, 0], 2) == (1, 3)
    assert len(_pool(supports, [1, 3, 0], 4)) == 4 and set(_pool(supports, [1, 3, 0], 4)) > {0, 1, 3}
    assert _pool(supports, [1, 3, 0], 9) == (0, 1, 2, 3, 4)
    backward = {4 - index for index in _pool(supports[::-1], [3, 1, 4], 4)}
    assert backward == set(_pool(supports, [1, 3, 0], 4))  # whatever the order


class Counting(density.Task):
    """Densities that note how many supports they are fitted on."""

    sizes: ClassVar[list[int]] = []

    def _fitted(self) -> SupportTokens:
        self.sizes.append(len(self.supports))
        return super()._fitted()


@pytest.mark.parametrize(
    ("ways", "shots", "fits"), [(1, 3, [2] * 3), (4, 3, [2] * 12), (8, 3, [2] * 24), (1, 30, [9] * 5)]
)
def test_the_work_grows_with_the_classes_and_not_with_the_supports(ways: int, shots: int, fits: list[int]) -> None:
    Counting.sizes.clear()
    supports = areas(*range(5, 5 + ways * shots), ways=ways)
    member = EnsembleMember(Counting, density.Settings(), tuple("abcdefgh"[:ways]), SPEC)
    left_out = leave_one_out(supports, [member], max_supports=5, fraction=0.1, kappa=20.0)
    assert Counting.sizes == fits
    assert [len(left) for left in left_out.left_out] == [min(shots, 5)] * ways


def test_supports_that_show_several_classes_are_left_out_once() -> None:
    Counting.sizes.clear()
    supports = [
        Support(one.features, torch.cat([one.masks, one.masks.flip(2)]), one.valid_mask) for one in areas(20, 14, 9)
    ]
    member = EnsembleMember(Counting, density.Settings(), ("a", "b"), SPEC)
    left_out = leave_one_out(supports, [member], max_supports=5, fraction=0.1, kappa=20.0)
    assert Counting.sizes == [2] * 3
    assert left_out.left_out == ((0, 1, 2), (0, 1, 2))
    score = member.fit(supports[1:]).score(supports[0].features)
    assert torch.equal(left_out.scores[1][0].ious, _held_out(score[None, 2], supports[0], 1).ious)
