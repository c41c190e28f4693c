"""A bank of many references: bounded, of the same mass, the same whatever the order, and near the whole bank."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods import _supports, density
from kshot.methods._support_tokens import SupportTokens, reduced_tokens, stack_supports
from kshot.methods._supports import bounded
from kshot.methods.base import Support
from kshot.ops.geometry import FeatureMap, Frame
from kshot.ops.pooling import token_sums
from kshot.ops.similarity import vmf_means

FRAME = Frame((64, 64), (64, 64), 8)


def bank(count: int, seed: int = 0) -> SupportTokens:
    """Tokens around twelve directions, the first six of the background and the others of a class."""
    rng = torch.Generator().manual_seed(seed)
    means = F.normalize(torch.randn(12, 32, generator=rng), dim=1)
    which = torch.randint(12, (count,), generator=rng)
    tokens = F.normalize(means[which] + 0.1 * torch.randn(count, 32, generator=rng), dim=1)
    return SupportTokens(tokens, F.one_hot((which > 5).long(), 2).float())


def test_a_bank_is_bounded_and_keeps_its_mass() -> None:
    whole = bank(40_000)
    kept = reduced_tokens(whole, 256)
    assert len(kept.tokens) == 512 and torch.allclose(kept.tokens.norm(dim=1), torch.ones(512), atol=1e-5)
    assert kept.labels.sum(0).tolist() == pytest.approx(whole.labels.sum(0).tolist(), rel=1e-3)
    few = bank(100)
    assert len(reduced_tokens(few, 256).tokens) == 100


def test_densities_are_near_those_of_the_whole_bank() -> None:
    whole, queries = bank(40_000), bank(200, seed=1).tokens
    full = vmf_means(queries, whole.tokens, whole.labels, 20.0)
    near, odd = (
        vmf_means(queries, part.tokens, part.labels, 20.0)
        for part in (reduced_tokens(whole, 256), bank(40_000, seed=2))
    )
    ratios, kept, other = (means.clamp(min=1e-6).log().diff(dim=1) for means in (full, near, odd))
    assert float((ratios - kept).abs().mean()) < 0.1 < float((ratios - other).abs().mean())


def test_the_order_of_the_tokens_does_not_matter() -> None:
    whole = bank(5_000)
    order = torch.randperm(5_000, generator=torch.Generator().manual_seed(3))
    one, two = reduced_tokens(whole, 128), reduced_tokens(SupportTokens(whole.tokens[order], whole.labels[order]), 128)
    assert torch.equal(one.tokens, two.tokens) and torch.allclose(one.labels, two.labels)


def supports(count: int, seed: int | None = None) -> list[Support]:
    rng = torch.Generator().manual_seed(count if seed is None else seed)
    made = []
    for _ in range(count):
        mask = torch.zeros(1, 8, 8)
        mask[0, 2:6, 2:6] = 1
        features = F.normalize(torch.randn(32, 8, 8, generator=rng), dim=0)
        made.append(Support(FeatureMap(features, FRAME, "x"), mask, torch.ones(8, 8)))
    return made


def test_many_supports_take_no_more_tokens_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    for fit in (stack_supports, lambda given: density.fit(given, density.Settings())):
        counts = [len(fit(supports(count)).tokens) for count in (64, 400)]
        assert max(counts) <= 2 * _supports.CORESET_TOKENS
    assert len(stack_supports(supports(_supports.MANY)).tokens) == _supports.MANY * 64  # few stay whole


def test_a_support_that_joins_many_reads_none_of_their_tokens_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    many, read = supports(_supports.MANY + 8), list[Tensor]()
    before = stack_supports(many)
    monkeypatch.setattr(_supports, "token_sums", lambda tokens: read.append(tokens) or token_sums(tokens))
    (new,) = supports(1)
    after = stack_supports([*(each.with_ways(1) for each in many), new])
    assert len(read) == 1 and torch.equal(read[0], new.features.tokens)
    assert float(after.labels.sum()) == pytest.approx(float(before.labels.sum()) + 64, rel=1e-4)


def test_a_bank_of_supports_is_that_of_their_tokens() -> None:
    many = supports(_supports.MANY + 8)
    labels = torch.cat([torch.cat([each.background[None], each.masks]).flatten(1).T for each in many])
    tokens = torch.cat([each.features.tokens for each in many])
    one, two = stack_supports(many), reduced_tokens(SupportTokens(tokens, labels))
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.labels, two.labels)


def test_of_many_supports_few_stay_whole_and_all_tokens_count() -> None:
    kept = bounded(supports(200))
    *whole, bank = kept
    assert len(whole) == _supports.MANY and {each.kind for each in whole} == {"mask"}
    assert bank.kind == "bank" and sum(each.count for each in kept) == 200
    assert bank.features.grid_hw[1] <= 2 * _supports.CORESET_TOKENS
    assert float(sum(each.valid_mask.sum() for each in kept)) == pytest.approx(200 * 64, rel=1e-4)
    assert float(sum(each.masks.sum() for each in kept)) == pytest.approx(200 * 16, rel=1e-4)
    given = {float(each.features.features.sum()): place for place, each in enumerate(supports(200), start=1)}
    assert [each.number for each in whole] == [given[float(each.features.features.sum())] for each in whole]


def test_few_supports_stay_as_they_are() -> None:
    few = supports(_supports.MANY)
    assert all(one is each for one, each in zip(bounded(few), few, strict=True))


def test_supports_that_come_one_by_one_or_in_another_order_leave_the_same_ones_and_the_same_tokens() -> None:
    many = supports(120)
    at_once, step_by_step = bounded(many), bounded(many[:50])
    for support in many[50:]:
        step_by_step = bounded([*step_by_step, support])
    backwards = bounded(reversed(many))
    for other in (step_by_step, backwards):
        assert {each.rank for each in other[:-1]} == {each.rank for each in at_once[:-1]}
        assert _same_tokens(other[-1], at_once[-1])
        assert torch.allclose(other[-1].masks.sum(), at_once[-1].masks.sum(), rtol=1e-3)
    assert [each.number for each in step_by_step[:-1]] == [each.number for each in at_once[:-1]]


def _same_tokens(one: Support, other: Support) -> bool:
    tokens = [set(map(tuple, each.features.tokens.tolist())) for each in (one, other)]
    return tokens[0] == tokens[1]


def test_each_class_keeps_its_own_supports() -> None:
    """A class of three supports among a hundred of another loses none of them."""
    rare = [each.with_ways(2) for each in supports(3, seed=7)]
    rare = [replace(each, masks=each.masks.flip(0)) for each in rare]
    kept = bounded([*(each.with_ways(2) for each in supports(100)), *rare])
    assert sum(bool(each.masks[1].any()) for each in kept[:-1]) == 3
    assert not bool(kept[-1].masks[1].any()) and len(kept) == _supports.MANY + 4


def test_a_bank_scores_as_its_supports_do() -> None:
    """Densities of the class over the background around new tokens, from a bank and from all supports."""
    whole, queries = bank(64 * 120), bank(200, seed=1).tokens
    many = [
        Support(FeatureMap(tokens.T.reshape(32, 8, 8), FRAME, "x"), labels[:, 1].reshape(1, 8, 8), torch.ones(8, 8))
        for tokens, labels in zip(whole.tokens.split(64), whole.labels.split(64), strict=True)
    ]
    full, kept = (
        vmf_means(queries, stacked.tokens, stacked.labels, 20.0) for stacked in (whole, stack_supports(bounded(many)))
    )
    ratios, near = (means.clamp(min=1e-6).log().diff(dim=1) for means in (full, kept))
    assert float((ratios - near).abs().mean()) < 0.05
