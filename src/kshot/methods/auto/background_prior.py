"""Background priors: which come with kshot, and how much weight one gets beside the supports' own background.

`kshot train background` makes a prior from unlabelled photographs; it holds means of patch tokens and no image.
`density` uses it. Photographs show different places, so the prior adds what the supports do not show. Images from one
microscope share one background, which a prior would only blur.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.io.tensor_file import Learned, read_learned
from kshot.methods.base import Support
from kshot.ops.geometry import near_pairs
from kshot.ops.similarity import DENSITY_FLOOR, vmf_means

IDENTITY_LETTERS = 16  # of a backbone's identity in the name of a prior's file
_FOLDER = Path(__file__).parent / "backgrounds"
_MAX_SUPPORTS = 5  # supports whose background is predicted from the others'
_NEAR = 0.28  # fraction of the grid's longer side within which tokens of one image resemble each other in any case
# Log ratio of the supports' own prediction to the prior's at which the prior gets half of its weight: where supports
# predict each other, and where a lone support predicts itself and is this typical of photographs (`_typicality`).
_MIDPOINT_BETWEEN, _MIDPOINT_WITHIN, _TYPICAL = 2.5, 5.5, 0.88
_SLOPE, _SLOPE_OF_TYPICAL = 4.0, 45.0


@lru_cache(maxsize=8)
def shipped_prior(identity: str) -> Learned | None:
    """The background prior that comes with kshot for a backbone's features; None where there is none."""
    path = _FOLDER / f"{identity[:IDENTITY_LETTERS]}.safetensors"
    return read_learned(path) if path.is_file() else None


def prior_weight(supports: Sequence[Support], prior: Learned, kappa: float) -> float:
    """Weight of a background prior in 0..1; 1 where the supports show no background.

    It is low where a support's background is predicted much better by the other supports' background than by the
    prior. A lone support is predicted by its own patches far away; since a lawn predicts itself as well as a microscope
    slide does, it also counts whether the patches are of kinds that photographs show.
    """
    shown = [support for support in supports if float(support.background.sum()) > 0]
    shown.sort(key=lambda support: float(support.features.features.sum()))  # independent of the caller's order
    ratios = [
        _log_ratio(support, [other for other in shown if other is not support][:_MAX_SUPPORTS], prior, kappa)
        for support in shown[:_MAX_SUPPORTS]
    ]
    if not ratios:
        return 1.0
    ratio = torch.stack(ratios).mean()
    if len(shown) > 1:
        return float(torch.sigmoid(_SLOPE * (_MIDPOINT_BETWEEN - ratio)))
    typical = _SLOPE_OF_TYPICAL * (_typicality(shown[0], prior) - _TYPICAL)
    return float(torch.sigmoid(_SLOPE * (_MIDPOINT_WITHIN - ratio) + typical))


def _typicality(support: Support, prior: Learned) -> Tensor:
    """() mean cosine of a support's patches with the nearest mean, relative to photographs' own; at most 1."""
    means = prior.tensor("means").to(support.features.tokens)
    nearest = (support.features.tokens @ F.normalize(means, dim=1).T).amax(1).mean()
    typicality: Tensor = nearest / (prior.tensor("shares") @ means.norm(dim=1))
    return typicality.clamp(max=1.0)


def _log_ratio(support: Support, others: Sequence[Support], prior: Learned, kappa: float) -> Tensor:
    """() mean log ratio of a background's density under the others, or under itself, to that under the prior."""
    tokens, background = support.features.tokens.contiguous(), support.background.flatten()
    means = prior.tensor("means").to(tokens)
    by_prior = vmf_means(tokens, means, prior.tensor("shares")[:, None], kappa)[:, 0]
    if others:
        others_tokens = torch.cat([other.features.tokens for other in others])
        weights = torch.cat([other.background.flatten() for other in others])
        own = vmf_means(tokens, others_tokens, weights[:, None], kappa)[:, 0]
    else:
        grid_hw = support.features.grid_hw
        far = (~near_pairs(grid_hw, max(1, int(_NEAR * max(grid_hw))))).float()
        kernel = ((tokens @ tokens.T - 1) * kappa).exp() * far
        own = (kernel @ background) / (far @ background).clamp(min=1e-6)
    ratios = own.clamp(min=DENSITY_FLOOR).log() - by_prior.clamp(min=DENSITY_FLOOR).log()
    return (ratios @ background) / background.sum()
