"""The labelled patch tokens of all supports side by side, from which most methods start."""

from collections.abc import Sequence
from typing import NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor

from kshot.methods._supports import CORESET_TOKENS, MANY, Support, coreset_of, stacked_labels
from kshot.ops.coresets import coreset
from kshot.ops.discriminants import Discriminants
from kshot.ops.geometry import FeatureMap, coverage
from kshot.ops.pooling import token_sums
from kshot.ops.similarity import DENSITY_FLOOR, for_products, products_dtype, vmf_means

_FLOOR = 1e-6


class SupportTokens(NamedTuple):
    """Patch tokens with their labels."""

    tokens: Tensor
    """(n, c) of unit length; shorter where one stands for several."""
    labels: Tensor
    """(n, N+1) how much of each patch shows what; column 0 is the background shared by all supports."""
    discriminants: Discriminants | None = None
    """What the tokens are joined with, and an image's tokens before they are compared; None for nothing."""

    def for_products(self) -> "SupportTokens":
        """The same, for methods that do nothing but multiply the tokens with those of queries."""
        return self._replace(tokens=for_products(self.tokens))


# Of each image: its tokens as products want them, which several members of an ensemble ask for; and the tokens that it
# was compared with last, kappa, and the result, which presence asks for again.
_tokens: WeakKeyDictionary[FeatureMap, Tensor] = WeakKeyDictionary()
_joined: WeakKeyDictionary[FeatureMap, tuple[Discriminants, Tensor]] = WeakKeyDictionary()
_densities: WeakKeyDictionary[FeatureMap, tuple[ReferenceType[Tensor], float, Tensor]] = WeakKeyDictionary()


def query_tokens(features: FeatureMap, discriminants: Discriminants | None = None) -> Tensor:
    """(q, c) an image's patch tokens, see `for_products`, joined with discriminants if there are any."""
    if discriminants is not None:
        known = _joined.get(features)
        if known is None or known[0] is not discriminants or known[1].dtype != products_dtype():
            known = _joined[features] = discriminants, for_products(discriminants.join(features.tokens))
        return known[1]
    found = _tokens.get(features)
    if found is None or found.dtype != products_dtype():
        found = _tokens[features] = for_products(features.tokens)
    return found


def densities(supports: SupportTokens, features: FeatureMap, kappa: float) -> Tensor:
    """(q, N+1) kernel densities of the background's and each class's support tokens around an image's patch tokens."""
    found = vmf_means(query_tokens(features, supports.discriminants), supports.tokens, supports.labels, kappa)
    _densities[features] = ref(supports.tokens), kappa, found
    return found


def stack_supports(supports: Sequence[Support]) -> SupportTokens:
    """The patch tokens of all supports, without those of which nothing is labelled; of more than `MANY` a coreset."""
    if len(supports) > MANY:
        return SupportTokens(*coreset_of(supports))
    labels = stacked_labels(supports)
    kept = labels.sum(1) > 0
    return SupportTokens(torch.cat([support.features.tokens for support in supports])[kept], labels[kept].contiguous())


def reduced_tokens(supports: SupportTokens, most: int = CORESET_TOKENS) -> SupportTokens:
    """At most `most` tokens for the background and for each class, see `kshot.ops.coresets`."""
    tokens, labels = supports.tokens, supports.labels
    return SupportTokens(*coreset(token_sums(tokens), labels, tokens.__getitem__, most))


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
        tokens = query_tokens(features, supports.discriminants)[likely]
        means = vmf_means(tokens, supports.tokens, supports.labels, kappa)
    others = totals.clone()
    others[way + 1] = 0
    sides = torch.stack([means @ others / others.sum().clamp(min=_FLOOR), means[:, way + 1]], 1)
    ratios = log_ratios(sides, DENSITY_FLOOR)[:, 1]
    return ratios.topk(min(count, len(ratios))).values.mean()
