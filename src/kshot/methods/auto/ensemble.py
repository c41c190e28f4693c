"""The ensemble: a threshold and a weight for each member, and one temperature for all, from leave-one-out scores.

Each member gets the threshold that served it best on the left-out supports. Its weight is the softmax of the IoU that
it reaches there, as Bayesian model averaging weights models by their likelihood (Hoeting et al., "Bayesian model
averaging", Statistical Science 1999): with near ties, an average is better than the best member alone. The temperature
of the combined logits minimises the log loss on left-out patches (temperature scaling: Guo et al., ICML 2017, 4.2).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods._leave_one_out import CANDIDATE_THRESHOLDS, HeldOutScores, LeaveOneOut

NO_SHIFT = 1e6  # a penalty that keeps every threshold where it is
_INV_TEMPERATURES = torch.tensor([0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.5, 0.7, 1.0, 1.4])
_ZERO = int((CANDIDATE_THRESHOLDS == 0).nonzero())
_MIN_IOU = 0.02  # mean IoUs below this are too small to compare
# Halved or doubled, these three move no development set by half a point (benchmarks/results/sensitivity.json).
_WEIGHT_INV_TEMPERATURE = 50.0  # of the softmax over IoUs that makes members' weights
_FIRST_MARGIN = 0.02  # relative IoU by which another member has to be better than the first
STD_ERROR_PENALTY = 0.75  # standard errors that are taken off the gain of a threshold or a member
_MIN_WEIGHT = 0.05  # members below it are left out, to save their time
DEFAULT_INV_TEMPERATURE = 0.7  # where nothing could be left out; it changes scores and no mask
_TEMPERATURE_PENALTY = 0.01  # log loss, times the squared log ratio to the default


@dataclass(frozen=True, eq=False)
class Ensemble:
    """A weighted sum of members' logits, each less its thresholds."""

    weights: Tensor
    """(members,), sums to 1."""
    thresholds: Tensor
    """(members, N) logits."""
    inv_temperature: float = DEFAULT_INV_TEMPERATURE
    """Factor on the combined logits."""

    @property
    def used(self) -> list[int]:
        """Indices of the members with a weight above zero."""
        return [int(index) for index in self.weights.nonzero()[:, 0]]

    def combine(self, logits: Iterable[Tensor]) -> Tensor:
        """(N+1, gh, gw) the combined logits of the members that are `used`, before the temperature."""
        weighed = zip(self.weights[self.used], self.thresholds[self.used], logits, strict=True)
        return torch.stack([weight * _above(planes, thresholds) for weight, thresholds, planes in weighed]).sum(0)

    def held_out_logits(self, scores: HeldOutScores, way: int) -> Tensor:
        """(n,) combined logits of class `way` where it was left out, before the temperature."""
        return self.weights @ (scores.logits - self.thresholds[:, way, None])


def fit_ensemble(ious: Sequence[Tensor | None], members: int, penalties: Tensor) -> Ensemble:
    """Weights and thresholds from leave-one-out IoUs; the first member alone where nothing could be left out.

    ious: for each class (samples, members, t) at `CANDIDATE_THRESHOLDS`, or None. penalties: (N,) IoU that a candidate
    costs, times its square.
    """
    weights, thresholds = torch.eye(members)[0], torch.zeros(members, len(ious))
    measured = {way: samples for way, samples in enumerate(ious) if samples is not None}
    if not measured:
        return Ensemble(weights, thresholds)
    found = [_gains(samples, float(penalties[way])) for way, samples in measured.items()]
    gains, best = [gain for gain, _ in found], torch.stack([index for _, index in found], 1)  # best (members, ways)
    thresholds.index_add_(1, torch.tensor(list(measured)), CANDIDATE_THRESHOLDS[best])
    margin = _FIRST_MARGIN + STD_ERROR_PENALTY * std_error(torch.cat(gains))
    gain = torch.stack([samples.mean(0) for samples in gains]).mean(0) - margin * (1 - weights)
    weights = (_WEIGHT_INV_TEMPERATURE * gain).softmax(0)
    weights = torch.where(weights < _MIN_WEIGHT, 0.0, weights)
    return Ensemble(weights / weights.sum(), thresholds)


def _gains(ious: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Gains (samples, members) over the first member at threshold zero, and the best candidates (members,).

    ious (samples, members, t) count relative to twice the mean of each sample's best, so that small objects matter.
    """
    relative = ious / (2 * ious.amax((1, 2)).mean()).clamp(min=_MIN_IOU)
    shifted = relative - relative[..., _ZERO, None] - penalty * CANDIDATE_THRESHOLDS**2
    best = (shifted.mean(0) - STD_ERROR_PENALTY * std_error(shifted)).argmax(1)  # (members,)
    at_best = shifted.gather(2, best.expand(len(shifted), -1)[..., None])[..., 0]
    return at_best + relative[..., _ZERO] - relative[:, :1, _ZERO], best


def std_error(samples: Tensor) -> Tensor:
    """Standard error of the mean over samples (n, ...); 0 for a single one."""
    return samples.std(0) / len(samples) ** 0.5 if len(samples) > 1 else torch.zeros_like(samples[0])


def fit_inv_temperature(ensemble: Ensemble, left_out: LeaveOneOut) -> float:
    """The factor on the logits with the least log loss on left-out patches, every sample alike."""
    losses = [
        _log_losses(ensemble.held_out_logits(scores, way), scores)
        for way, samples in enumerate(left_out.scores)
        for scores in samples
    ]
    if not losses:
        return DEFAULT_INV_TEMPERATURE
    deviation = (_INV_TEMPERATURES / DEFAULT_INV_TEMPERATURE).log()
    costs = torch.stack(losses).mean(0) + _TEMPERATURE_PENALTY * deviation**2
    return float(_INV_TEMPERATURES[costs.argmin()])


def _log_losses(margin: Tensor, scores: HeldOutScores) -> Tensor:
    """(t,) mean log loss over labelled patches at each of `_INV_TEMPERATURES`."""
    logits = _INV_TEMPERATURES[:, None] * margin
    loss = F.binary_cross_entropy_with_logits(logits, scores.mask.expand_as(logits), reduction="none")
    return (loss @ scores.valid_mask) / scores.valid_mask.sum().clamp(min=1e-6)


def _above(logits: Tensor, thresholds: Tensor) -> Tensor:
    """Logits (N+1, gh, gw) less the classes' thresholds (N,)."""
    return torch.cat([logits[:1], logits[1:] - thresholds[:, None, None]])
