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

from kshot.io.tensor_file import Learned, read_learned
from kshot.methods.base import Support
from kshot.ops.similarity import DENSITY_FLOOR, vmf_means

IDENTITY_LETTERS = 16  # of a backbone's identity in the name of a prior's file
_FOLDER = Path(__file__).parent / "backgrounds"
_MAX_SUPPORTS = 5  # supports whose background is predicted from the others'
# Log ratio of a support's prediction by the others to the prior's at which the prior gets half of its weight.
_MIDPOINT, _SLOPE = 2.5, 4.0
DIVERSE = 0.5  # weight from which on images count as photographs of many places


@lru_cache(maxsize=8)
def shipped_prior(identity: str) -> Learned | None:
    """The background prior that comes with kshot for a backbone's features; None where there is none."""
    path = _FOLDER / f"{identity[:IDENTITY_LETTERS]}.safetensors"
    return read_learned(path) if path.is_file() else None


def prior_weight(supports: Sequence[Support], prior: Learned, kappa: float) -> float:
    """Weight of a background prior in 0..1, whatever the order of the supports.

    It is low where a support's background is predicted much better by the other supports' background than by the
    prior. Nothing can be said of a lone one (`lone_support`): 1.
    """
    shown = with_background(supports)
    if len(shown) < 2:
        return 1.0
    shown.sort(key=lambda support: float(support.features.features.sum()))  # independent of the caller's order
    ratios = [
        _log_ratio(support, (shown[:index] + shown[index + 1 :])[:_MAX_SUPPORTS], prior, kappa)
        for index, support in enumerate(shown[:_MAX_SUPPORTS])
    ]
    return float(torch.sigmoid(_SLOPE * (_MIDPOINT - torch.stack(ratios).mean())))


def with_background(supports: Sequence[Support]) -> list[Support]:
    """The supports that show some background."""
    return [support for support in supports if float(support.background.sum()) > 0]


def by_prior(tokens: Tensor, prior: Learned, kappa: float) -> Tensor:
    """(n,) densities of tokens (n, c) under the prior."""
    return vmf_means(tokens, prior.tensor("means").to(tokens), prior.tensor("shares")[:, None], kappa)[:, 0]


def mean_log_ratio(own: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """() weighted mean of the log ratios of two densities (n,); weights: (n,)."""
    ratios = own.clamp(min=DENSITY_FLOOR).log() - other.clamp(min=DENSITY_FLOOR).log()
    return (ratios @ weights) / weights.sum()


def _log_ratio(support: Support, others: Sequence[Support], prior: Learned, kappa: float) -> Tensor:
    """() mean log ratio of a background's density under the others' background to that under the prior."""
    tokens, background = support.features.tokens.contiguous(), support.background.flatten()
    theirs = torch.cat([other.features.tokens for other in others])
    weights = torch.cat([other.background.flatten() for other in others])
    own = vmf_means(tokens, theirs, weights[:, None], kappa)[:, 0]
    return mean_log_ratio(own, by_prior(tokens, prior, kappa), background)
