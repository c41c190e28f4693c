"""Region readout: whole regions of the query join a class, not single cells (in the line of INSID3 and FoRIS, 2025-26).

Clusters of a class's support cells are its prototypes; the background's are clusters of all its cells and, once more,
of the hard ones, the nearest to any class. Log-sum-exp over each, weighed by their shares, gives the log ratio of a
query cell. The query's own cells are clustered too. The cluster that matches a class best is its seed; a cluster joins
as far as it matches the supports, resembles the seed, and its cells' nearest support cells show the class. All three
are soft, so none of them cuts a region off. The threshold is calibrated by leaving out one support after another.

The papers first project out of the features what a constant image holds, which is position. A method sees no backbone
and so no constant image: what can be had without, the query's mean, is taken out before its cells are clustered.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods import base
from kshot.methods._support_tokens import gather
from kshot.ops.clustering import agglomerate, group_means
from kshot.ops.geometry import FeatureMap
from kshot.ops.pooling import masked_average
from kshot.ops.similarity import cosines

_LEAST = 1e-3  # of a share, before its logarithm
_SHIFTS = torch.linspace(-6, 6, 49)  # thresholds that are tried
_SLACK = 0.005  # of IoU; of thresholds as good as the best, the one nearest to the default is taken


@dataclass(frozen=True)
class Settings:
    """hard: part of the background that is hard, the nearest to the classes. soft: part of the vote that every cluster
    has, as a hard gate loses true parts. These are the papers'. So are cosine distances of 0.4 and 0.6 up to which
    support and query cells are linked, but for features of DINOv3.

    Chosen on VOC development data with a supervised ViT: foreground, query: those distances; the query's cells are
    centred here. kappa: sharpness of log-sum-exp. emphasis: weight of the hard background beside all of it; hard
    background alone knows nothing of what looks like neither. region: how much of a cell's logit is its cluster's.
    seed, vote: powers of the resemblance to the seed and of the vote. threshold: taken off all logits when nothing can
    be left out. prior: how many supports that were left out it weighs as much as. held: most that are left out, in
    turn. most: cells that are linked at once, as memory and time grow with their square.
    """

    foreground: float = 0.3
    query: float = 0.8
    hard: float = 0.2
    kappa: float = 20.0
    emphasis: float = 0.1
    region: float = 0.5
    seed: float = 0.5
    vote: float = 0.5
    soft: float = 0.2
    threshold: float = -0.5
    prior: float = 8.0
    held: int = 5
    most: int = 1024


class _Prototypes(NamedTuple):
    """means: (k, c) of unit length. logs: (k,) logarithms of their shares, which sum to one."""

    means: Tensor
    logs: Tensor

    def beside(self, other: "_Prototypes", share: float) -> "_Prototypes":
        """Both together, the other with a share of the whole."""
        if share <= 0:
            return self
        means = torch.cat([self.means, other.means])
        return _Prototypes(means, torch.cat([self.logs + math.log(max(1 - share, 1e-9)), other.logs + math.log(share)]))


class _Model(NamedTuple):
    """prototypes: of the background and of each class, (k, c) each. supports: tokens (n, c), labels (n, N+1) each."""

    prototypes: tuple[_Prototypes, ...]
    supports: tuple[tuple[Tensor, Tensor], ...]


class _Fitted(NamedTuple):
    model: _Model
    threshold: float


class Task(base.Task):
    """Class logits of cells and their regions."""

    method = "regions"
    Settings = Settings

    def _fitted(self) -> _Fitted:
        return _Fitted(_fit(self.supports, self.settings), _calibrated(self.supports, self.settings))

    def _score(self, features: FeatureMap) -> Tensor:
        logits = _readout(self.fitted.model, features, self.settings) - self.fitted.threshold
        return torch.cat([torch.zeros_like(logits[:1]), logits])


def _fit(supports: Sequence[base.Support], settings: Settings) -> _Model:
    tokens, labels = gather(supports)
    shown = labels[:, 1:]
    near = (tokens @ masked_average(tokens, shown.T).T).amax(1)  # (n,) to the nearest class's mean
    hard = _prototypes(tokens, _hard(labels[:, 0], near, settings.hard), settings)
    prototypes = [_prototypes(tokens, labels[:, 0], settings).beside(hard, settings.emphasis)]
    prototypes += [_prototypes(tokens, weights, settings) for weights in shown.T]
    return _Model(tuple(prototypes), tuple(gather([support]) for support in supports))


def _hard(weights: Tensor, near: Tensor, part: float) -> Tensor:
    """(n,) background weights, those of all but the nearest `part` of the background put to zero."""
    count = max(1, round(part * float((weights > 0).sum())))
    order = torch.where(weights > 0, near, -2.0)
    return torch.where(order >= order.topk(count).values[-1], weights, 0.0)


def _prototypes(tokens: Tensor, weights: Tensor, settings: Settings) -> _Prototypes:
    """(k, c): means of clusters of the cells that show most of something; (0, c) of nothing."""
    kept = (weights > 0) & (weights >= weights.max() / 2)
    if not bool(kept.any()):
        return _Prototypes(tokens[:0], weights[:0])
    groups = agglomerate(tokens[kept], settings.foreground, settings.most)
    means = F.normalize(group_means(tokens[kept], groups, weights[kept]), dim=1)
    mass = torch.zeros(len(means)).index_add_(0, groups, weights[kept])
    return _Prototypes(means, (mass / mass.sum()).log())


def _readout(model: _Model, features: FeatureMap, settings: Settings) -> Tensor:
    """(N, gh, gw) logits before the threshold."""
    tokens = features.tokens.contiguous()
    logs = torch.stack([_aggregate(tokens, means, settings.kappa) for means in model.prototypes], 1)  # (q, N+1)
    ratios = logs[:, 1:] - logs[:, :1]
    groups = agglomerate(F.normalize(tokens - tokens.mean(0), dim=1), settings.query, settings.most)
    of_region = group_means(ratios, groups)  # (r, N)
    cover = _softly(group_means(_votes(model, tokens), groups), settings.soft) ** settings.vote
    best = (of_region + cover.log()).argmax(0)  # (N,) the seeds
    centres = F.normalize(group_means(tokens, groups), dim=1)
    alike = (centres @ centres[best].T).clamp(min=_LEAST) ** settings.seed  # (r, N)
    joined = settings.region * of_region + (cover * alike).log()
    logits = (1 - settings.region) * ratios + joined[groups]
    return logits.T.reshape(-1, *features.grid_hw)


def _aggregate(tokens: Tensor, means: _Prototypes, kappa: float) -> Tensor:
    """(q,): log-sum-exp over prototypes (k, c); without any, as if at a right angle to all cells."""
    if not len(means.logs):
        return tokens.new_zeros(len(tokens))
    return (kappa * tokens @ means.means.T + means.logs).logsumexp(1)


def _softly(shares: Tensor, least: float) -> Tensor:
    return (shares + least) / (1 + least)


def _votes(model: _Model, tokens: Tensor) -> Tensor:
    """(q, N): the part of the supports in which a query cell's nearest cell shows each class.

    A support that shows nothing of a class has no vote on it.
    """
    ways = model.supports[0][1].shape[1] - 1
    votes, voters = tokens.new_zeros(len(tokens), ways), tokens.new_zeros(ways)
    for cells, labels in model.supports:
        nearest = torch.cat([cosine.argmax(1) for cosine in cosines(tokens, cells)])
        has = (labels[:, 1:].amax(0) > 0).to(tokens)
        votes, voters = votes + labels[nearest, 1:] * has, voters + has
    return votes / voters.clamp(min=1)


def _calibrated(supports: Sequence[base.Support], settings: Settings) -> float:
    """The threshold under which supports that were left out are segmented best, drawn towards the default one."""
    held = _held(supports, settings.held)
    if not held:
        return settings.threshold
    shared, either = torch.zeros(len(_SHIFTS)), torch.zeros(len(_SHIFTS))
    for index in held:
        rest = [support for other, support in enumerate(supports) if other != index]
        logits = _readout(_fit(rest, settings), supports[index].features, settings)
        overlap, union = _overlaps(logits, supports[index])
        shared, either = shared + overlap, either + union
    iou = shared / either.clamp(min=1)
    good = _SHIFTS[iou >= iou.max() - _SLACK]
    best = float(good[(good - settings.threshold).abs().argmin()])
    return (len(held) * best + settings.prior * settings.threshold) / (len(held) + settings.prior)


def _held(supports: Sequence[base.Support], most: int) -> list[int]:
    """Indices of the supports to leave out: the others still show each of their classes. Independent of the order."""
    shows = torch.stack([support.masks.flatten(1).amax(1) > 0 for support in supports])  # (s, N)
    often = shows.sum(0) > 1
    fit = [i for i, row in enumerate(shows) if bool(row.any()) and bool(often[row].all())]
    fit.sort(key=lambda i: float(supports[i].features.features.double().sum()))
    return [fit[round(place)] for place in torch.linspace(0, len(fit) - 1, min(most, len(fit))).tolist()]


def _overlaps(logits: Tensor, support: base.Support) -> tuple[Tensor, Tensor]:
    """Intersection and union in cells, (t,) each for `_SHIFTS`, of logits (N, gh, gw) with the support's masks."""
    best, winner = logits.max(0)
    right = support.masks.gather(0, winner[None])[0]
    shown, known = support.masks.sum(0), support.known
    wins = best > _SHIFTS[:, None, None]  # (t, gh, gw)
    return (wins * right).sum((1, 2)), (wins * (known - shown)).sum((1, 2)) + shown.sum()
