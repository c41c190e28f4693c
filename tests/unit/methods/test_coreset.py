"""A bank of many references: bounded, of the same mass, the same whatever the order, and near the whole bank."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods import _support_tokens, base, density
from kshot.methods._support_tokens import SupportTokens, coreset, stack_supports
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
    kept = coreset(whole, 256)
    assert len(kept.tokens) == 512 and torch.allclose(kept.tokens.norm(dim=1), torch.ones(512), atol=1e-5)
    assert kept.labels.sum(0).tolist() == pytest.approx(whole.labels.sum(0).tolist(), rel=1e-3)
    few = bank(100)
    assert len(coreset(few, 256).tokens) == 100


def test_densities_are_near_those_of_the_whole_bank() -> None:
    whole, queries = bank(40_000), bank(200, seed=1).tokens
    full = vmf_means(queries, *whole, 20.0)
    near, odd = (vmf_means(queries, *part, 20.0) for part in (coreset(whole, 256), bank(40_000, seed=2)))
    ratios, kept, other = (means.clamp(min=1e-6).log().diff(dim=1) for means in (full, near, odd))
    assert float((ratios - kept).abs().mean()) < 0.1 < float((ratios - other).abs().mean())


def test_the_order_of_the_tokens_does_not_matter() -> None:
    whole = bank(5_000)
    order = torch.randperm(5_000, generator=torch.Generator().manual_seed(3))
    one, two = coreset(whole, 128), coreset(SupportTokens(whole.tokens[order], whole.labels[order]), 128)
    assert torch.equal(one.tokens, two.tokens) and torch.allclose(one.labels, two.labels)


def supports(count: int) -> list[Support]:
    rng = torch.Generator().manual_seed(count)
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
        assert max(counts) <= 2 * _support_tokens.CORESET_TOKENS
    assert len(stack_supports(supports(_support_tokens.MANY)).tokens) == _support_tokens.MANY * 64  # few stay whole


def test_a_support_that_joins_many_reads_none_of_their_tokens_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    many, read = supports(_support_tokens.MANY + 8), list[Tensor]()
    before = stack_supports(many)
    monkeypatch.setattr(base, "token_sums", lambda tokens: read.append(tokens) or token_sums(tokens))
    (new,) = supports(1)
    after = stack_supports([*(each.with_ways(1) for each in many), new])
    assert len(read) == 1 and torch.equal(read[0], new.features.tokens)
    assert float(after.labels.sum()) == pytest.approx(float(before.labels.sum()) + 64, rel=1e-4)


def test_a_bank_of_supports_is_that_of_their_tokens() -> None:
    many = supports(_support_tokens.MANY + 8)
    labels = torch.cat([torch.cat([each.background[None], each.masks]).flatten(1).T for each in many])
    tokens = torch.cat([each.features.tokens for each in many])
    one, two = stack_supports(many), coreset(SupportTokens(tokens, labels))
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.labels, two.labels)
