"""kshot's default method: an ensemble that calibrates itself on the supports.

Fitting:

0. The ensemble's members see supports from near, in crops around what they show (`ops.support_crops`).
1. The background prior that came with kshot for the backbone (or was given) gets a weight in 0..1: high where images
   are photographs of many places, low where they look alike (`background_prior`). With a lone support each query tells
   whether the two look alike (`lone_support`), and what follows is done for both cases.
2. The members of the ensemble are `density`, with the prior beside the supports' background, and, where images look
   alike, `attention` and `matching`.
3. Leave-one-out: each class is searched for in up to five of its supports with the help of the others. The results give
   each member its thresholds and weight, and one temperature for all (`ensemble`).
4. They also tell how a class scores where it is present, and which supports the others do not recognise (`warnings`).

Scoring a query:

1. The members' logits are combined, each less its thresholds.
2. The threshold of a lone class with one support moves with the query, towards the middle of its scores.
3. Presence: a calibrated model over a class's best patches, the image as a whole, and the lead over competing classes
   (`presence`).
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.io.tensor_file import Learned
from kshot.methods import attention, base, density, matching
from kshot.methods._leave_one_out import EnsembleMember, LeaveOneOut, leave_one_out, supports_showing
from kshot.methods._support_tokens import SupportTokens, top_k_log_ratio
from kshot.methods.auto.background_prior import DIVERSE, prior_weight, shipped_prior, with_background
from kshot.methods.auto.ensemble import NO_SHIFT, Ensemble, fit_ensemble, fit_inv_temperature
from kshot.methods.auto.lone_support import LoneSupport
from kshot.methods.auto.pixels import PixelEvidence, fit_pixel_evidence
from kshot.methods.auto.presence import (
    exclusive_pairs,
    left_out_log_odds,
    model_of,
    modelled_log_odds,
    presence_cues,
    token_cosines,
)
from kshot.ops.geometry import FeatureMap, coverage

_MAX_TOKENS = 1280  # patches of a support beyond which matching costs more than the encoder
_KAPPA = density.Settings().kappa
_MAX_LEFT_OUT = 5  # supports of a class that are left out in turn
_TOP_FRACTION = 0.025  # of an image's patches, the best ones, that presence is judged by
_BACKGROUND_QUANTILE = 0.2  # patches of an image below it are taken not to show the class
# Relative IoU that a threshold costs, times its square; the halves of a lone support tell less.
_THRESHOLD_PENALTY, _THRESHOLD_PENALTY_ONE_SHOT = 0.03, 0.15


@dataclass(frozen=True)
class Settings:
    """Chosen on development data; docs/log.md shows what each part is worth there, and the command."""

    affinity_smoothing: bool = True
    """Average densities over similar tokens of the query, where images do not look alike."""
    self_support: bool = True
    """Let confident patches of the query join the supports."""
    calibrate_threshold: bool = True
    """Choose thresholds on the supports and move them for each query by its own scores; false keeps them at zero."""
    ensemble: bool = True
    """Add `attention` and `matching` to `density`, where images look alike."""
    background_prior: bool = True
    """Put a background prior beside the supports' own background."""
    discriminants: bool = True
    """Compare tokens by linear discriminants of photographs too, where images do not look alike."""
    pixels: bool = True
    """Add a classifier of single pixels, as far as left-out supports say that it helps (`pixels`)."""
    calibrate_scores: bool = True
    """Fit the temperature of the logits on left-out supports."""
    presence: bool = True
    """Judge presence by a calibrated model (`presence`); false takes it from the logits alone."""
    query_threshold_shift: float = 0.4
    """Fraction of the way from 0 to the middle of the query's scores that a threshold moves, for one class with one
    support, times the weight of the background prior."""
    presence_threshold: float = 0.5
    """Probability of presence below which a class is left out of the mask."""
    weights: str = field(default="", repr=False)
    """File or folder of a background prior; empty for the one that came with kshot for the backbone, if any."""


class _Fitted(NamedTuple):
    supports: SupportTokens
    """Of all supports; presence is judged by them."""
    left_out: LeaveOneOut
    tasks: tuple[base.Task, ...]
    """Tasks of the members that `ensemble` uses."""
    ensemble: Ensemble
    prior_weight: float
    """Weight of the background prior in 0..1; 0 without one."""
    lone: LoneSupport | None
    """Where queries tell whether they look like the support: then this is for those that do not."""
    exclusive: Tensor
    """(N, N) bool, pairs of classes that compete."""
    pixels: PixelEvidence | None
    """None where the supports say nothing about single pixels."""


class Task(base.Task):
    """Combined logits of the ensemble's members, each above thresholds of its own."""

    method = "auto"
    Settings = Settings
    reads_banks: ClassVar[bool] = True
    learns: ClassVar[str] = "density"
    reads_pixels: ClassVar[bool] = True
    crops_supports: ClassVar[bool] = True

    def _fitted(self) -> _Fitted:
        prior = self._prior()
        if prior is None:
            return self._fit(None, 0.0)
        shown = with_background(self._images)
        lone = LoneSupport(shown[0], prior, _KAPPA) if len(shown) == 1 else None
        return self._fit(prior, prior_weight(shown, prior, _KAPPA), lone)

    @cached_property
    def _fitted_alike(self) -> _Fitted:
        """For queries that look like a lone support; the first one waits for it."""
        with torch.inference_mode(), self._products():
            return self._fit(self._prior(), 0.0)

    def _fit(self, prior: Learned | None, weight: float, lone: LoneSupport | None = None) -> _Fitted:
        """weight: of the background prior, 0..1."""
        supports = self._images
        members = self._members(prior, weight)
        left_out = leave_one_out(supports, members, _MAX_LEFT_OUT, _TOP_FRACTION, _KAPPA)
        ensemble = self._ensemble(left_out, len(members), weight)
        tasks = tuple(members[index].fit(self.supports) for index in ensemble.used)
        # The task of `density`, where it is used, has stacked the supports already.
        tokens = tasks[0].fitted if ensemble.used[0] == 0 else members[0].fit(self.supports).fitted
        drawn = self.settings.pixels and any(support.pixels is not None for support in supports)
        pixels = fit_pixel_evidence(supports, left_out, ensemble, 1.0 if prior is None else weight) if drawn else None
        return _Fitted(tokens, left_out, tasks, ensemble, weight, lone, exclusive_pairs(supports), pixels)

    def fitted_for(self, features: FeatureMap) -> _Fitted:
        """What scores the query with these features."""
        fitted: _Fitted = self.fitted
        if fitted.lone is None:
            return fitted
        with torch.inference_mode(), self._products():
            alike = fitted.lone.looks_like(features)
        return self._fitted_alike if alike else fitted

    def with_pixels(self, logits: Tensor, features: FeatureMap, image: NDArray[np.uint8]) -> Tensor:
        """The refined logits (N+1, h, w), and the evidence of single pixels of an image (h, w, 3)."""
        evidence = self.fitted_for(features).pixels
        return logits if evidence is None else evidence.add(logits, image)

    def _score(self, features: FeatureMap) -> Tensor:
        fitted = self.fitted_for(features)
        logits = fitted.ensemble.combine(task.score(features) for task in fitted.tasks)
        logits[1:] -= self._query_shift(fitted, features, logits)
        return logits.mul_(fitted.ensemble.inv_temperature)

    def presence(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N,) calibrated probabilities in 0..1, see `kshot.methods.auto.presence`."""
        if not self.settings.presence:
            return super().presence(features, logits)
        with self._products():
            cues = self.presence_cues(features, logits)
        model = model_of(self._prior())
        if model is not None:
            odds = modelled_log_odds(cues, model.to(cues))
        else:
            odds = left_out_log_odds(cues[:, 0], self.fitted_for(features).left_out.top_k_log_ratios)
        return torch.sigmoid(odds)

    def presence_cues(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N, cues) what presence is judged by, see `CUES`; logits: from `score` of these features."""
        fitted = self.fitted_for(features)
        ratios = torch.stack(
            [
                top_k_log_ratio(fitted.supports, features, logits, way, _TOP_FRACTION, _KAPPA)
                for way in range(len(logits) - 1)
            ]
        )
        tokens = token_cosines(self._images, features).to(ratios)
        counts = [len(supports_showing(self._images, way)) for way in range(len(self.classes))]
        left_out, shown = fitted.left_out.top_k_log_ratios, torch.tensor(counts).to(ratios)
        return presence_cues(ratios, left_out, tokens, shown, fitted.exclusive)

    @property
    def presence_threshold(self) -> float:
        """Probability of presence below which a class is left out of the mask."""
        return float(self.settings.presence_threshold) if self.settings.presence else super().presence_threshold

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each support in which the others find almost nothing of its class."""
        left_out: LeaveOneOut = self.fitted.left_out
        return left_out.warnings(self.classes, self._images)

    @property
    def _images(self) -> list[base.Support]:
        """The supports but for a bank: what only images tell is read from them."""
        return [support for support in self.supports if support.kind != "bank"]

    @property
    def _one_shot(self) -> bool:
        """Whether every class has at most one support, so that no support can be left out."""
        return all(len(supports_showing(self._images, way)) <= 1 for way in range(len(self.classes)))

    def _prior(self) -> Learned | None:
        """The background prior: the one that was given, or the one that came with kshot."""
        if not self.settings.background_prior:
            return None
        return self.learned or shipped_prior(self.feature_spec.identity)

    def _members(self, prior: Learned | None, weight: float) -> list[EnsembleMember]:
        """The members of the ensemble, `density` first."""
        settings = density.Settings()
        # Several supports show for themselves what varies from one image of a class to the next.
        shots = sum(len(supports_showing(self._images, way)) for way in range(len(self.classes))) / len(self.classes)
        settings = replace(
            settings,
            background_prior_weight=settings.background_prior_weight * weight,
            discriminant_share=settings.discriminant_share * weight / max(shots, 1)
            if self.settings.discriminants
            else 0.0,
        )
        # Where images look alike, an object and its surroundings do too, and smoothing would run over the border.
        if not self.settings.affinity_smoothing or (prior is not None and weight < DIVERSE):
            settings = replace(settings, affinity_sharpness=0.0)
        if not self.settings.self_support:
            settings = replace(settings, self_support_weight=0.0)
        members = [EnsembleMember(density.Task, settings, self.classes, self.feature_spec, prior)]
        # Photographs of other places say little about which method suits the next one: there `density` alone is best.
        if self.settings.ensemble and weight < DIVERSE:
            others: list[tuple[type[base.Task], Any]] = [(attention.Task, attention.Settings())]
            if all(len(support.features.tokens) <= _MAX_TOKENS for support in self._images):
                others.append((matching.Task, matching.Settings()))
            members += [EnsembleMember(task, chosen, self.classes, self.feature_spec) for task, chosen in others]
        return members

    def _ensemble(self, left_out: LeaveOneOut, members: int, weight: float) -> Ensemble:
        """Thresholds, weights and temperature; weight: of the background prior."""
        settings = self.settings
        penalties = torch.tensor(
            [_THRESHOLD_PENALTY if indices else _THRESHOLD_PENALTY_ONE_SHOT for indices in left_out.left_out]
        )
        # A threshold that was best on photographs of some places is no better than zero on the next, and a single
        # support tells less about it than the query does (`_query_shift`).
        if not settings.calibrate_threshold or (weight >= DIVERSE and not self._one_shot):
            penalties = torch.full_like(penalties, NO_SHIFT)
        ensemble = fit_ensemble(left_out.ious, members, penalties)
        if settings.calibrate_scores:
            return replace(ensemble, inv_temperature=fit_inv_temperature(ensemble, left_out))
        return ensemble

    def _query_shift(self, fitted: _Fitted, features: FeatureMap, logits: Tensor) -> Tensor:
        """() how far the threshold of a lone class with one support moves, from the combined logits (2, gh, gw)."""
        settings = self.settings
        if not (settings.calibrate_threshold and len(self.classes) == 1 and self._one_shot):
            return torch.tensor(0.0)
        share: float = settings.query_threshold_shift * fitted.prior_weight
        return share * _query_midpoint(logits[1], features)


def _query_midpoint(plane: Tensor, features: FeatureMap) -> Tensor:
    """() middle between the best of a class's scores (gh, gw) in a query and their lowest fifth."""
    scores = plane[coverage(features.frame) > 0]
    best = scores.topk(max(1, round(_TOP_FRACTION * len(scores)))).values.mean()
    midpoint: Tensor = (best + scores.quantile(_BACKGROUND_QUANTILE)) / 2
    return midpoint
