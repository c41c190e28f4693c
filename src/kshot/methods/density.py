"""Kernel densities of foreground and background, and the logarithm of their ratio.

A patch belongs to a class where the class's support tokens lie denser around its token than the background's do:

1. The log ratio of two von Mises-Fisher kernel densities, each normalised by its number of tokens, so that zero is the
   natural threshold and a query may hold nothing of the class (kernel: Banerjee et al., JMLR 2005, section 2; density
   ratios as in few-shot methods in the line of FROST).
2. Affinity smoothing: ratios are averaged over similar tokens of the query, as in the region readout (`regions`).
3. Self support: confident patches of the query join the supports of a second estimate (after Fan et al., ECCV 2022),
   with a weight that falls to zero when no patch is confident.

A background prior, learned from unlabelled photographs, may count as the background of further supports.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.io.tensor_file import Learned
from kshot.methods import base
from kshot.methods._support_tokens import SupportTokens, densities, log_ratios, query_tokens, reduced_tokens
from kshot.methods._supports import MANY
from kshot.ops.discriminants import Discriminants
from kshot.ops.geometry import FeatureMap, coverage
from kshot.ops.similarity import DENSITY_FLOOR, cosines_less_one, for_products, weighted

_MAX_KEYS = 4096  # patches of the query that it is compared with in itself
_TINY = 1e-30  # affinity of a token that no other resembles
_TRACE = 1e-3  # fraction of a patch below which a class does not count as shown


@dataclass(frozen=True)
class Settings:
    """Chosen on development data: VOC train and half of coco-mini; the token limits on VOC val."""

    kappa: float = 20.0
    """Concentration of the von Mises-Fisher kernel; higher trusts only near-identical tokens."""
    affinity_sharpness: float = 10.0
    """Inverse temperature of the average over similar tokens of the query; 0 turns affinity smoothing off."""
    self_support_weight: float = 0.5
    """Largest weight, in 0..1, of the query's own patches in the second estimate; 0 turns self support off."""
    self_support_half_mass: float = 40.0
    """Patches that a class covers in the query at which self support has half of its largest weight."""
    foreground_logit_penalty: float = 1.0
    """Logits taken off every class before confident patches are chosen, in favour of the background."""
    self_support_sharpness: float = 4.0
    """Factor on the log ratios before the softmax that chooses confident patches."""
    pool: int = 0
    """Side of the squares of patches that the query is compared with in itself; 0 is 1 on grids of up to 4,096 patches
    and larger on finer ones, where it would cost more than the encoder."""
    max_background_tokens: int = 512
    """Patches that show background alone are thinned evenly to about this number; those on a border all stay."""
    max_foreground_tokens: int = 512
    """The same for the patches that show one class alone, for each class."""
    background_prior_weight: float = 1.0
    """Number of supports that the background prior counts as."""
    discriminant_share: float = 0.3
    """Of linear discriminants in the cosine of two tokens, in 0..1, where the background prior has some; the rest is of
    the tokens' own cosine."""
    weights: str = field(default="", repr=False)
    """File or folder of a background prior (`kshot train background`); empty for none."""


class Task(base.Task):
    """Logits are log density ratios of the classes to the background; classes are decided jointly."""

    method = "density"
    Settings = Settings
    reads_banks = True

    def _fitted(self) -> SupportTokens:
        return fit(self.supports, self.settings, self.learned).for_products()

    def _score(self, features: FeatureMap) -> Tensor:
        settings = self.settings
        fitted: SupportTokens = self.fitted
        first = densities(fitted, features, settings.kappa)  # (q, N+1)
        logits: Tensor = (
            QueryAffinity(features, settings, fitted.discriminants).refine(first).T.reshape(-1, *features.grid_hw)
        )
        return logits


def fit(supports: Sequence[base.Support], settings: Settings, prior: Learned | None = None) -> SupportTokens:
    """The supports' tokens, thinned where many show one thing alone, and those of the background prior."""
    labels = [torch.cat([support.background[None], support.masks]) for support in supports]  # (N+1, gh, gw) each
    images = [planes for support, planes in zip(supports, labels, strict=True) if support.kind != "bank"]
    pure = torch.stack([_pure(planes).sum((1, 2)) for planes in images]).sum(0)  # (N+1,)
    most = torch.full_like(pure, settings.max_foreground_tokens)
    most[0] = settings.max_background_tokens
    strides = (pure / most).sqrt().ceil().clamp(min=1).int().tolist()
    kept = [
        _thinned(support, planes, strides if support.kind != "bank" else [1] * len(strides))
        for support, planes in zip(supports, labels, strict=True)
    ]
    own = SupportTokens(torch.cat([tokens for tokens, _ in kept]), torch.cat([weights for _, weights in kept]))
    own = reduced_tokens(own) if len(supports) > MANY else own
    if prior is None:
        return own
    discriminants = discriminants_of(prior, settings)
    if discriminants is not None:
        own = SupportTokens(discriminants.join(own.tokens), own.labels, discriminants)
    backgrounds = sum(support.count for support in supports if bool(support.background.any()))
    weight = settings.background_prior_weight
    return _with_prior(own, prior, weight / (weight + backgrounds) if backgrounds else 1.0)


def discriminants_of(prior: Learned | None, settings: Settings) -> Discriminants | None:
    """The discriminants that came with a background prior; None where there are none, or they count for nothing."""
    if prior is None or settings.discriminant_share < _TRACE or "directions" not in prior.tensors:
        return None
    return Discriminants(prior.tensor("mean").float(), prior.tensor("directions").float(), settings.discriminant_share)


def _with_prior(own: SupportTokens, prior: Learned, fraction: float) -> SupportTokens:
    """Tokens and those of the background prior, which then are `fraction` of all background."""
    if fraction < _TRACE:  # a thousand tokens that count for nothing would still cost their cosines
        return own
    means, shares = prior.tensor("means"), prior.tensor("shares")  # (k, c), (k,) that sum to 1
    own_labels, labels = own.labels.clone(), torch.zeros(len(means), own.labels.shape[1])
    labels[:, 0] = fraction * shares * (own.labels[:, 0].sum() if fraction < 1 else 1)
    own_labels[:, 0] *= 1 - fraction
    if own.discriminants is not None:
        means = own.discriminants.join(means, prior.tensor("projected"))
    tokens = torch.cat([own.tokens, means.to(own.tokens)])
    return SupportTokens(tokens, torch.cat([own_labels, labels]), own.discriminants)


def _pure(labels: Tensor) -> Tensor:
    """(N+1, gh, gw) bool: patches that show one thing and nothing else, from how much of each they show."""
    others = labels.sum(0) - labels
    return (labels > _TRACE) & (others < _TRACE)


def _thinned(support: base.Support, labels: Tensor, strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Tokens (n, c) and labels (n, N+1) of a support; of pure patches those on every `stride`-th row and column."""
    kept, weights = (labels > 0).any(0), labels.clone()
    for row, pure in enumerate(_pure(labels)):
        stay = torch.zeros_like(pure)
        stay[:: strides[row], :: strides[row]] = True
        stay &= pure
        if bool(stay.any()):  # those that stay stand for those that go
            weights[row][stay] *= labels[row][pure].sum() / labels[row][stay].sum()
            kept &= stay | ~pure
    kept = kept.flatten()
    return support.features.tokens[kept], weights.flatten(1).T[kept]


class QueryAffinity:
    """How similar the q patch tokens of one image are to each other, whatever is searched for in it.

    They are compared with r pooled ones, the keys (r, c): the means of `pool` x `pool` patches (`Settings.pool`), of
    unit length; `sizes` (r,) are the patches that each stands for.
    """

    def __init__(self, features: FeatureMap, settings: Settings, discriminants: Discriminants | None = None):
        self.settings, self.grid_hw = settings, features.grid_hw
        tokens = query_tokens(features, discriminants)
        self.pool = settings.pool or math.ceil((len(tokens) / _MAX_KEYS) ** 0.5)
        inside = coverage(features.frame).flatten()
        keys = tokens
        if self.pool > 1:
            keys = for_products(F.normalize(self._pooled(tokens.float()), dim=1))
        self.sizes = self._pooled(inside[:, None])[:, 0] * (len(inside) / len(keys))
        similar = torch.cat(list(cosines_less_one(tokens, keys)))  # (q, r)
        sharpness = settings.affinity_sharpness
        self.affinity = (sharpness * similar).exp_() if sharpness > 0 else None
        self.kernel = similar.mul_(settings.kappa).exp_() if settings.self_support_weight > 0 else None

    def refine(self, first: Tensor) -> Tensor:
        """Log ratios (q, ..., N+1) from the supports' densities (q, ..., N+1), after smoothing and self support."""
        settings = self.settings
        ratios = self._smoothed(log_ratios(first, DENSITY_FLOOR))
        if self.kernel is not None:
            labels = self._labels(_confidences(ratios, settings))
            mass = labels.sum(0)
            weight = settings.self_support_weight * mass / (mass + settings.self_support_half_mass)
            second = weighted(self.kernel, labels.flatten(1)).view_as(first) / mass.clamp(min=1e-6)
            ratios = self._smoothed(log_ratios((1 - weight) * first + weight * second, DENSITY_FLOOR))
        return ratios

    def _smoothed(self, ratios: Tensor) -> Tensor:
        """Their means (q, ...) under the softmax over similar tokens, each of which counts by its size."""
        if self.affinity is None:
            return ratios
        values = torch.cat([self._labels(ratios.flatten(1)), self.sizes[:, None]], 1)
        sums = weighted(self.affinity, values)
        return (sums[:, :-1] / sums[:, -1:].clamp(min=_TINY)).view_as(ratios)

    def _labels(self, shares: Tensor) -> Tensor:
        """(r, ...) patches under each key that are labelled, from the labelled share (q, ...) of each patch."""
        pooled = self._pooled(shares.flatten(1)) * self.sizes[:, None]
        return pooled.view(-1, *shares.shape[1:])

    def _pooled(self, values: Tensor) -> Tensor:
        """(q, k) values of patches to (r, k) means."""
        if self.pool == 1:
            return values
        planes = values.T.reshape(1, -1, *self.grid_hw)
        pooled = F.avg_pool2d(planes, self.pool, ceil_mode=True, count_include_pad=False)
        return pooled[0].flatten(1).T.contiguous()


def _confidences(ratios: Tensor, settings: Settings) -> Tensor:
    """(q, ..., N+1) softmax of the first estimate, with a penalty on the classes."""
    logits = settings.self_support_sharpness * ratios
    logits[..., 1:] -= settings.foreground_logit_penalty
    return logits.movedim(-1, 0).softmax(0).movedim(0, -1)  # over rows: ten times as fast as over so short columns
