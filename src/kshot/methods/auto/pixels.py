"""How much single pixels count beside patches: as much as left-out supports say.

The classifier of pixels (`kshot.methods._pixel_classifier`) is added to the combined logits with a weight that each
class chooses where it was left out: among fields, cells, cracks and ores it often finds twice as much as patches do,
and among photographs it finds colours. Zero is the weight unless another is better by more than chance.

The halves of a lone support are of one image, where pixels always do well: there they must do better than patches by
a margin, count by half, and among photographs not at all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.methods._leave_one_out import HeldOutScores, LeaveOneOut
from kshot.methods._pixel_classifier import PixelClassifier, fit_pixels, pixel_log_odds
from kshot.methods.auto.background_prior import DIVERSE
from kshot.methods.auto.ensemble import STD_ERROR_PENALTY, Ensemble, std_error
from kshot.methods.base import Support
from kshot.ops.geometry import to_pixels
from kshot.ops.pixel_features import PixelSamples, copy_size

CANDIDATE_WEIGHTS = torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0])
_LIMIT = 4.0  # patches' logits are clamped to -4..4 before, so that one side does not outvote the other
# Relative IoU by which a weight above zero has to be better: where images look alike, and on top among photographs.
_MARGIN, _MARGIN_OF_PHOTOGRAPHS = 0.02, 0.08
_ONE_SUPPORT_MARGIN = 0.1  # IoU by which pixels alone have to be better in halves of a lone support
_ONE_SUPPORT_WEIGHT = 0.5


class PixelEvidence(NamedTuple):
    """Classifiers of pixels, and how much each counts."""

    classifiers: tuple[PixelClassifier | None, ...]
    """For each class."""
    weights: Tensor
    """(N,); 0 where patches alone are better."""

    def add(self, logits: Tensor, image: NDArray[np.uint8]) -> Tensor:
        """Logits (N+1, h, w) of patches, at full size, and pixels together."""
        if not bool(self.weights.any()):
            return logits
        used = [each if weight > 0 else None for each, weight in zip(self.classifiers, self.weights, strict=True)]
        fine = pixel_log_odds(used, image).mul_(self.weights[:, None, None])
        kept = torch.where(self.weights > 0, _LIMIT, torch.inf)[:, None, None]
        return torch.cat([logits[:1], logits[1:].clamp(-kept, kept) + fine])


def fit_pixel_evidence(
    supports: Sequence[Support], left_out: LeaveOneOut, ensemble: Ensemble, photographs: float
) -> PixelEvidence:
    """Classifiers of the supports' pixels, and their weights from the supports that were left out.

    photographs: 0 where images look alike, to 1 for photographs of many places.
    """
    ways = supports[0].masks.shape[0]
    weights = torch.stack([_weight(supports, way, left_out, ensemble, photographs) for way in range(ways)])
    own = [support.pixels for support in supports if support.pixels is not None]
    return PixelEvidence(
        tuple(fit_pixels(own, way) if weight > 0 else None for way, weight in enumerate(weights)), weights
    )


def _weight(
    supports: Sequence[Support], way: int, left_out: LeaveOneOut, ensemble: Ensemble, photographs: float
) -> Tensor:
    """() the candidate with the best IoU in left-out supports."""
    if not left_out.left_out[way]:
        return (
            CANDIDATE_WEIGHTS[0] if photographs >= DIVERSE else _one_support_weight(supports, way, left_out.scores[way])
        )
    found = []
    for index, scores in zip(left_out.left_out[way], left_out.scores[way], strict=True):
        hidden = supports[index]
        others = [each.pixels for place, each in enumerate(supports) if place != index and each.pixels is not None]
        classifier = fit_pixels(others, way) if hidden.pixels is not None else None
        if classifier is None or hidden.pixels is None:
            return CANDIDATE_WEIGHTS[0]
        grid = ensemble.held_out_logits(scores, way).view(hidden.features.grid_hw) * ensemble.inv_temperature
        patches = _at_places(grid, hidden, hidden.pixels).clamp(-_LIMIT, _LIMIT)
        together = patches + CANDIDATE_WEIGHTS[:, None] * classifier.log_odds(hidden.pixels.features)
        found.append(_ious(together > 0, hidden.pixels, way))
    ious = torch.stack(found)  # (samples, weights)
    gains = (ious - ious[:, :1]) / ious.amax(1).mean().clamp(min=0.02)
    margin = _MARGIN + _MARGIN_OF_PHOTOGRAPHS * photographs
    penalty = STD_ERROR_PENALTY * std_error(gains) + margin * (CANDIDATE_WEIGHTS > 0)
    return CANDIDATE_WEIGHTS[(gains.mean(0) - penalty).argmax()]


def _one_support_weight(supports: Sequence[Support], way: int, scores: Sequence[HeldOutScores]) -> Tensor:
    """() the weight where a class has one support: its upper, lower, left and right part tell of the opposite one."""
    samples = next(
        (s.pixels for s in supports if s.pixels is not None and bool((s.pixels.labels == way + 1).any())), None
    )
    if samples is None or not scores:
        return CANDIDATE_WEIGHTS[0]
    found, shown = [], samples.labels == way + 1
    for axis in range(2):
        first = samples.places[:, axis] <= samples.places[shown, axis].float().median()
        for seen in (first, ~first):
            classifier, hidden = fit_pixels([samples.part(seen)], way), samples.part(~seen)
            if classifier is not None:
                found.append(_ious(classifier.log_odds(hidden.features)[None] > 0, hidden, way)[0])
    patches = torch.stack([each.ious[0] for each in scores]).mean(0).amax()
    better = bool(found) and bool(torch.stack(found).mean() > patches + _ONE_SUPPORT_MARGIN)
    return torch.tensor(_ONE_SUPPORT_WEIGHT if better else 0.0)


def _at_places(grid: Tensor, support: Support, samples: PixelSamples) -> Tensor:
    """(n,) values of a grid (gh, gw) where samples lie."""
    frame = support.features.frame
    plane = to_pixels(grid, frame, copy_size(frame.size_hw))
    rows, columns = samples.places.long().T
    return plane[rows, columns]


def _ious(found: Tensor, samples: PixelSamples, way: int) -> Tensor:
    """(w,) IoU of predictions (w, n) for samples, each of which stands for several pixels."""
    shown, counts = samples.labels == way + 1, samples.counts
    both, either = ((mask.float() @ counts) for mask in (found & shown, found | shown))
    return both / either.clamp(min=1.0)
