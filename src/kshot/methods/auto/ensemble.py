"""Methods blended by what each finds where a class was left out, with thresholds and one scale for all.

Each method gets the threshold that would have served it best there. Methods weigh by the softmax of the IoU that they
then reach, as models weigh by their likelihood: to choose one alone loses where they are level (Hoeting et al.,
"Bayesian model averaging", Statistical Science 1999). One scale for what comes out is fitted as temperature scaling
does (Guo et al., ICML 2017, section 4.2), by the log loss of the left-out cells.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods._leave_one_out import TRIED, Held, Sought

NEVER = 1e6  # a toll that no threshold is worth
_SCALES = torch.tensor([0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.5, 0.7, 1.0, 1.4])
_ZERO = int((TRIED == 0).nonzero())
_LEAST = 0.02  # mean IoU below which nothing is told by how much larger one is than another


class Weighing(NamedTuple):
    """How IoUs become weights. They count as parts of twice the best there is, so that small things have their say.

    trust: a reading that finds one over it more weighs e times as much. favour: what the first has in advance. sure:
    standard errors that are taken off what a threshold or another reading wins. least: weight below which a reading is
    left out.
    """

    trust: float
    favour: float
    sure: float
    least: float


@dataclass(frozen=True, eq=False)
class Blend:
    """weights: (readings,) that sum to 1. thresholds: (readings, N) logits. scale: of the blended logits."""

    weights: Tensor
    thresholds: Tensor
    scale: float = 1.0

    @property
    def used(self) -> list[int]:
        """Indices of the readings that have a weight."""
        return [int(index) for index in self.weights.nonzero()[:, 0]]

    def __call__(self, logits: Iterable[Tensor]) -> Tensor:
        """Those of the readings that are `used`, (N+1, gh, gw) each, in one, before they are scaled."""
        weighed = zip(self.weights[self.used], self.thresholds[self.used], logits, strict=True)
        return torch.stack([weight * _less(planes, thresholds) for weight, thresholds, planes in weighed]).sum(0)

    def margin(self, sought: Sought, way: int) -> Tensor:
        """(cells,) the blended logits of one class where it was left out, before they are scaled."""
        return self.weights @ (sought.logits - self.thresholds[:, way, None])


def blended(ious: Sequence[Tensor | None], middles: Tensor, readings: int, tolls: Tensor, weighing: Weighing) -> Blend:
    """Weights and thresholds by what was found; the first reading alone where nothing could be sought.

    ious: of each class (samples, readings, t) at the thresholds `TRIED`, or None. middles: (N,) where the thresholds of
    all readings begin. tolls: (N,) of an IoU that a threshold costs, times its square.
    """
    weights, thresholds = torch.eye(readings)[0], middles.repeat(readings, 1)
    told = {way: samples for way, samples in enumerate(ious) if samples is not None}
    if not told:
        return Blend(weights, thresholds)
    found = [_gains(samples, float(tolls[way]), weighing.sure) for way, samples in told.items()]
    gains, best = [gain for gain, _ in found], torch.stack([index for _, index in found], 1)  # best (readings, told)
    thresholds.index_add_(1, torch.tensor(list(told)), TRIED[best])
    doubt = weighing.favour + weighing.sure * _error(torch.cat(gains))
    won = torch.stack([samples.mean(0) for samples in gains]).mean(0) - doubt * (1 - weights)
    weights = (weighing.trust * won).softmax(0)
    weights = torch.where(weights < weighing.least, 0.0, weights)
    return Blend(weights / weights.sum(), thresholds)


def _gains(ious: Tensor, toll: float, sure: float) -> tuple[Tensor, Tensor]:
    """What readings win at their best thresholds over the first one at zero (samples, readings), and these (readings,).

    ious: (samples, readings, t); they count as parts of twice the best that any sample could have had.
    """
    parts = ious / (2 * ious.amax((1, 2)).mean()).clamp(min=_LEAST)
    moved = parts - parts[..., _ZERO, None] - toll * TRIED**2
    best = (moved.mean(0) - sure * _error(moved)).argmax(1)  # (readings,)
    at_best = moved.gather(2, best.expand(len(moved), -1)[..., None])[..., 0]
    return at_best + parts[..., _ZERO] - parts[:, :1, _ZERO], best


def _error(samples: Tensor) -> Tensor:
    """Standard error of the mean over samples (n, ...); a single one is taken for sure."""
    return samples.std(0) / len(samples) ** 0.5 if len(samples) > 1 else torch.zeros_like(samples[0])


def scale_of(blend: Blend, held: Held, usual: float, firmness: float) -> float:
    """The scale with the least log loss over left-out cells, each sample alike.

    firmness: log loss that it costs to be e times the usual one, or a part of it.
    """
    losses = [
        _losses(blend.margin(sought, way), sought) for way, samples in enumerate(held.sought) for sought in samples
    ]
    if not losses:
        return usual
    costs = torch.stack(losses).mean(0) + firmness * (_SCALES / usual).log() ** 2
    return float(_SCALES[costs.argmin()])


def _losses(margin: Tensor, sought: Sought) -> Tensor:
    """(scales,) mean log loss of the cells that are known."""
    logits = _SCALES[:, None] * margin
    loss = F.binary_cross_entropy_with_logits(logits, sought.mask.expand_as(logits), reduction="none")
    return (loss @ sought.known) / sought.known.sum().clamp(min=1e-6)


def _less(logits: Tensor, thresholds: Tensor) -> Tensor:
    """Logits with the classes' thresholds (N,) taken off."""
    return torch.cat([logits[:1], logits[1:] - thresholds[:, None, None]])
