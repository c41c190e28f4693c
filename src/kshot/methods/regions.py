"""Region readout: whole regions of the query join a class, as in INSID3 and FoRIS (2025-26).

1. Clusters of a class's support tokens are its prototypes. The background's are clusters of all its tokens, and again
   of the hard ones, which are nearest to any class. Log-sum-exp over the prototypes, weighted by cluster size, gives
   the log ratio of each query token.
2. The query's own tokens are clustered into regions. The region with the best mean log ratio for a class is its seed.
3. A region joins the class as far as it matches the supports, resembles the seed, and its tokens' nearest support
   tokens show the class. All three are soft, so that no region is cut off entirely.
4. The threshold is calibrated by leave-one-out.

The papers first project out of the features what a constant image yields, which is position. A method sees no backbone
and so no constant image; the query's mean token is subtracted before clustering instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods import base
from kshot.methods._leave_one_out import each_left_out
from kshot.methods._support_tokens import SupportTokens, stack_supports
from kshot.ops.clustering import agglomerate, group_means
from kshot.ops.geometry import FeatureMap
from kshot.ops.pooling import masked_average
from kshot.ops.similarity import cosines

_MIN_COSINE = 1e-3  # before a logarithm
_CANDIDATE_THRESHOLDS = torch.linspace(-6, 6, 49)
_IOU_SLACK = 0.005  # of thresholds this close to the best, the one nearest to the default is taken


@dataclass(frozen=True)
class Settings:
    """`hard_fraction` and `vote_floor` are the papers'; the others were chosen on VOC development data with a ViT.

    The papers link DINOv3 features up to distances of 0.4 and 0.6, without centring the query.
    """

    support_distance: float = 0.3
    """Cosine distance up to which support tokens are linked."""
    query_distance: float = 0.8
    """Cosine distance up to which centred query tokens are linked."""
    hard_fraction: float = 0.2
    """Fraction of the background that is hard: the tokens nearest to the classes."""
    kappa: float = 20.0
    """Factor on the cosine in log-sum-exp."""
    hard_weight: float = 0.1
    """Weight, in 0..1, of the hard background beside all of it; hard tokens alone do not cover it."""
    region_weight: float = 0.5
    """Weight, in 0..1, of a patch's region beside its own log ratio."""
    seed_power: float = 0.5
    """Power of a region's cosine with the seed."""
    vote_power: float = 0.5
    """Power of the vote of the nearest support tokens."""
    vote_floor: float = 0.2
    """Vote that every region has, since a hard gate loses true regions."""
    threshold: float = -0.5
    """Taken off all logits when no support can be left out."""
    threshold_prior_weight: float = 8.0
    """Number of left-out supports that `threshold` counts as."""
    max_loo_supports: int = 5
    """Supports that are left out in turn, at most."""
    max_linked_tokens: int = 1024
    """Tokens that are linked at once, at most; memory and time grow with the square."""


class _Prototypes(NamedTuple):
    means: Tensor
    """(k, c) of unit length."""
    log_shares: Tensor
    """(k,) logarithms of their shares, which sum to one."""

    def beside(self, other: "_Prototypes", share: float) -> "_Prototypes":
        """Both together; the other has `share` of the whole."""
        if share <= 0:
            return self
        shares = [self.log_shares + math.log(max(1 - share, 1e-9)), other.log_shares + math.log(share)]
        return _Prototypes(torch.cat([self.means, other.means]), torch.cat(shares))


class _Model(NamedTuple):
    prototypes: tuple[_Prototypes, ...]
    """Of the background and of each class."""
    supports: tuple[SupportTokens, ...]
    """One for each support."""


class _Fitted(NamedTuple):
    model: _Model
    threshold: float


class Task(base.Task):
    """Logits of patches and their regions."""

    method = "regions"
    Settings = Settings

    def _fitted(self) -> _Fitted:
        return _Fitted(_fit(self.supports, self.settings), _calibrated_threshold(self.supports, self.settings))

    def _score(self, features: FeatureMap) -> Tensor:
        logits = _readout(self.fitted.model, features, self.settings) - self.fitted.threshold
        return torch.cat([torch.zeros_like(logits[:1]), logits])


def _fit(supports: Sequence[base.Support], settings: Settings) -> _Model:
    tokens, labels = stack_supports(supports)[:2]
    shown = labels[:, 1:]
    nearest = (tokens @ masked_average(tokens, shown.T).T).amax(1)  # (n,) cosine with the nearest class's mean
    hard = _prototypes(tokens, _hard(labels[:, 0], nearest, settings.hard_fraction), settings)
    prototypes = [_prototypes(tokens, labels[:, 0], settings).beside(hard, settings.hard_weight)]
    prototypes += [_prototypes(tokens, weights, settings) for weights in shown.T]
    return _Model(tuple(prototypes), tuple(stack_supports([support]) for support in supports))


def _hard(weights: Tensor, nearest: Tensor, fraction: float) -> Tensor:
    """(n,) background weights, zero for all but the `fraction` of the background nearest to the classes."""
    count = max(1, round(fraction * float((weights > 0).sum())))
    order = torch.where(weights > 0, nearest, -2.0)
    return torch.where(order >= order.topk(count).values[-1], weights, 0.0)


def _prototypes(tokens: Tensor, weights: Tensor, settings: Settings) -> _Prototypes:
    """Means of clusters of the tokens with at least half of the largest weight; k is 0 where all weights are zero."""
    kept = (weights > 0) & (weights >= weights.max() / 2)
    if not bool(kept.any()):
        return _Prototypes(tokens[:0], weights[:0])
    groups = agglomerate(tokens[kept], settings.support_distance, settings.max_linked_tokens)
    means = F.normalize(group_means(tokens[kept], groups, weights[kept]), dim=1)
    mass = torch.zeros(len(means)).index_add_(0, groups, weights[kept])
    return _Prototypes(means, (mass / mass.sum()).log())


def _readout(model: _Model, features: FeatureMap, settings: Settings) -> Tensor:
    """(N, gh, gw) logits before the threshold."""
    tokens = features.tokens.contiguous()
    likelihoods = [_log_likelihood(tokens, prototypes, settings.kappa) for prototypes in model.prototypes]
    logs = torch.stack(likelihoods, 1)  # (q, N+1)
    ratios = logs[:, 1:] - logs[:, :1]
    centred = F.normalize(tokens - tokens.mean(0), dim=1)
    groups = agglomerate(centred, settings.query_distance, settings.max_linked_tokens)
    of_regions = group_means(ratios, groups)  # (r, N)
    votes = (group_means(_votes(model, tokens), groups) + settings.vote_floor) / (1 + settings.vote_floor)
    votes = votes**settings.vote_power
    seeds = (of_regions + votes.log()).argmax(0)  # (N,)
    means = F.normalize(group_means(tokens, groups), dim=1)
    to_seed = (means @ means[seeds].T).clamp(min=_MIN_COSINE) ** settings.seed_power  # (r, N)
    joined = settings.region_weight * of_regions + (votes * to_seed).log()
    logits = (1 - settings.region_weight) * ratios + joined[groups]
    return logits.T.reshape(-1, *features.grid_hw)


def _log_likelihood(tokens: Tensor, prototypes: _Prototypes, kappa: float) -> Tensor:
    """(q,): log-sum-exp over the prototypes; without any, as if they were at a right angle to every token."""
    if not len(prototypes.log_shares):
        return tokens.new_zeros(len(tokens))
    return (kappa * tokens @ prototypes.means.T + prototypes.log_shares).logsumexp(1)


def _votes(model: _Model, tokens: Tensor) -> Tensor:
    """(q, N): the fraction of supports in which a query token's nearest token shows each class.

    A support that shows nothing of a class has no vote on it.
    """
    ways = model.supports[0].labels.shape[1] - 1
    votes, voters = tokens.new_zeros(len(tokens), ways), tokens.new_zeros(ways)
    for support in model.supports:
        nearest = torch.cat([cosine.argmax(1) for cosine in cosines(tokens, support.tokens)])
        has = (support.labels[:, 1:].amax(0) > 0).to(tokens)
        votes, voters = votes + support.labels[nearest, 1:] * has, voters + has
    return votes / voters.clamp(min=1)


def _calibrated_threshold(supports: Sequence[base.Support], settings: Settings) -> float:
    """The threshold with the best IoU over left-out supports, averaged with the default one."""
    overlap, union, count = torch.zeros(len(_CANDIDATE_THRESHOLDS)), torch.zeros(len(_CANDIDATE_THRESHOLDS)), 0
    for support, rest in each_left_out(supports, settings.max_loo_supports):
        logits = _readout(_fit(rest, settings), support.features, settings)
        own_overlap, own_union = _overlaps(logits, support)
        overlap, union, count = overlap + own_overlap, union + own_union, count + 1
    if not count:
        return settings.threshold
    iou = overlap / union.clamp(min=1)
    good = _CANDIDATE_THRESHOLDS[iou >= iou.max() - _IOU_SLACK]
    best = float(good[(good - settings.threshold).abs().argmin()])
    weight = settings.threshold_prior_weight
    return (count * best + weight * settings.threshold) / (count + weight)


def _overlaps(logits: Tensor, support: base.Support) -> tuple[Tensor, Tensor]:
    """(t,) intersection and union, in patches, of a support's masks and logits (N, gh, gw) above each threshold."""
    best, winner = logits.max(0)
    correct = support.masks.gather(0, winner[None])[0]
    shown = support.masks.sum(0)
    wins = best > _CANDIDATE_THRESHOLDS[:, None, None]  # (t, gh, gw)
    return (wins * correct).sum((1, 2)), (wins * (support.valid_mask - shown)).sum((1, 2)) + shown.sum()
