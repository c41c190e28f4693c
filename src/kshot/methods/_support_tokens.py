"""The labelled patch tokens of all supports side by side, from which most methods start."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor

from kshot.methods.base import Support
from kshot.ops.geometry import FeatureMap, coverage
from kshot.ops.pooling import stack_tokens, token_sums
from kshot.ops.similarity import DENSITY_FLOOR, cosines, for_products, vmf_means

_FLOOR = 1e-6
MANY = 32
"""Supports beyond which their tokens are kept as a coreset, so that scoring does not slow down with them."""
CORESET_TOKENS = 1024
"""Of the background, and of each class."""
_ASSIGNED = 16  # times as many tokens find their nearest one in a coreset; of more, evenly drawn ones do


class SupportTokens(NamedTuple):
    """Patch tokens with their labels."""

    tokens: Tensor
    """(n, c) of unit length; shorter where one stands for several."""
    labels: Tensor
    """(n, N+1) how much of each patch shows what; column 0 is the background shared by all supports."""

    def for_products(self) -> "SupportTokens":
        """The same, for methods that do nothing but multiply the tokens with those of queries."""
        return self._replace(tokens=for_products(self.tokens))


# Of each image: the tokens that it was compared with last, kappa, and the result, which presence asks for again.
_densities: WeakKeyDictionary[FeatureMap, tuple[ReferenceType[Tensor], float, Tensor]] = WeakKeyDictionary()


def densities(supports: SupportTokens, features: FeatureMap, kappa: float) -> Tensor:
    """(q, N+1) kernel densities of the background's and each class's support tokens around an image's patch tokens."""
    found = vmf_means(for_products(features.tokens), supports.tokens, supports.labels, kappa)
    _densities[features] = ref(supports.tokens), kappa, found
    return found


def stack_supports(supports: Sequence[Support]) -> SupportTokens:
    """The patch tokens of all supports, without those of which nothing is labelled."""
    classes = stack_tokens([support.masks for support in supports])  # (N, n)
    background = stack_tokens([support.background for support in supports])  # (n,)
    labels = torch.cat([background[None], classes]).T
    if len(supports) > MANY:
        keys = torch.cat([support.token_sums for support in supports])
        return _coreset(keys, labels, partial(_tokens_at, supports), CORESET_TOKENS)
    kept = labels.sum(1) > 0
    return SupportTokens(torch.cat([support.features.tokens for support in supports])[kept], labels[kept].contiguous())


def coreset(supports: SupportTokens, most: int = CORESET_TOKENS) -> SupportTokens:
    """A bank of many references as at most `most` tokens for the background and for each class, weighted by their kind.

    A token belongs to what it shows most of. Of those of one kind, evenly drawn ones stay, and each takes over the
    labels of the tokens that it is nearest to. Labels sum to what they summed to; the caller's order does not matter.
    """
    return _coreset(token_sums(supports.tokens), supports.labels, supports.tokens.__getitem__, most)


def _coreset(keys: Tensor, labels: Tensor, tokens_at: Callable[[Tensor], Tensor], most: int) -> SupportTokens:
    """The coreset of tokens by their sums (n,), which order them, and labels (n, N+1); only drawn ones are read.

    tokens_at: the tokens at some indices.
    """
    kinds, shown, parts = labels.argmax(1), labels.sum(1) > 0, list[tuple[Tensor, Tensor]]()
    for kind in range(labels.shape[1]):
        places = torch.nonzero(shown & (kinds == kind))[:, 0]
        own = labels[places]
        if len(places) <= most:
            parts.append((tokens_at(places), own))
            continue
        drawn, own = _drawn(keys[places], own, _ASSIGNED * most)
        places = places[drawn]
        tokens = tokens_at(places)
        centres = tokens[_drawn(keys[places], own, most)[0]]
        nearest = torch.cat([cosine.argmax(1) for cosine in cosines(tokens, centres)])
        parts.append((centres, own.new_zeros(len(centres), own.shape[1]).index_add_(0, nearest, own)))
    tokens, kept = (torch.cat(each) for each in zip(*parts, strict=True))
    return SupportTokens(tokens, kept.contiguous())


def _drawn(keys: Tensor, labels: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Indices of at most so many tokens, evenly along the order of their keys, and labels that stand for all."""
    if len(keys) <= most:
        return torch.arange(len(keys)), labels
    order = keys.argsort(stable=True)
    kept = order[torch.linspace(0, len(order) - 1, most).round().long()]
    return kept, labels[kept] * (labels.sum(0) / labels[kept].sum(0).clamp(min=_FLOOR))


def _tokens_at(supports: Sequence[Support], places: Tensor) -> Tensor:
    """(k, c) tokens at indices into the tokens of all supports, one behind the other."""
    ends = torch.tensor([support.features.tokens.shape[0] for support in supports]).cumsum(0)
    owners = torch.searchsorted(ends, places, right=True)
    found = supports[0].features.tokens.new_empty(len(places), supports[0].features.tokens.shape[1])
    for index in owners.unique().tolist():
        own = owners == index
        tokens = supports[index].features.tokens
        found[own] = tokens[places[own] - (int(ends[index]) - len(tokens))]
    return found


def log_ratios(shares: Tensor, floor: float = _FLOOR) -> Tensor:
    """Logarithms of shares (..., N+1), at least `floor` each, less that of the background, column 0."""
    logs = shares.clamp(min=floor).log()
    return logs - logs[..., :1]


def base_rates(labels: Tensor) -> Tensor:
    """(N+1,) the fraction of the labels (n, N+1) that the background and each class make up."""
    return (labels.sum(0) / labels.sum()).clamp(min=_FLOOR)


def soft_ious(found: Tensor, mask: Tensor, valid_mask: Tensor) -> Tensor:
    """IoU (...) of binary masks (..., n) with a soft mask (n,) over the labelled fraction (n,) of each patch."""
    shared = found @ mask
    return shared / (found @ valid_mask + mask.sum() - shared).clamp(min=_FLOOR)


def top_k_log_ratio(
    supports: SupportTokens, features: FeatureMap, logits: Tensor, way: int, fraction: float, kappa: float
) -> Tensor:
    """() mean log-likelihood ratio of class `way` to everything else, over its best `fraction` of the image's patches.

    Likelihoods are kernel densities of the supports' tokens. Only patches near the top by `logits` (N+1, gh, gw) count.
    """
    plane, totals = logits[way + 1], supports.labels.sum(0)
    count = max(1, round(fraction * float(coverage(features.frame).sum())))
    likely = plane.flatten().topk(min(4 * count, plane.numel())).indices
    known = _densities.get(features)
    if known is not None and known[0]() is supports.tokens and known[1] == kappa:
        means = known[2][likely]
    else:
        means = vmf_means(features.tokens[likely], supports.tokens, supports.labels, kappa)
    others = totals.clone()
    others[way + 1] = 0
    sides = torch.stack([means @ others / others.sum().clamp(min=_FLOOR), means[:, way + 1]], 1)
    ratios = log_ratios(sides, DENSITY_FLOOR)[:, 1]
    return ratios.topk(min(count, len(ratios))).values.mean()
