"""Positional debiasing: what a backbone says of a place, whatever is there, is taken out of features.

Cells of a picture of one colour differ in nothing but where they lie, so the main directions in which their features
differ carry position and no content. They are projected out of supports, queries and the universal background alike
(as INSID3 does, 2025, with a blank image). How many there are is fitted to the backbone: the fewest that hold a given
part of the variance over places. `kshot train background` finds them.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.errors import SettingError
from kshot.io.tensor_file import Learned
from kshot.ops.geometry import FeatureMap

NAME = "positions"  # of the directions among learned tensors


def directions(learned: Learned | None, part: float, width: int, backbone: str) -> Tensor:
    """(rank, width) rows of unit length: the fewest directions that hold `part` of the variance over places.

    learned: what is known of a backbone by this name, if anything. Raises `SettingError` for a part outside 0..1, and
    where the directions are needed and not known.
    """
    if not 0 <= part <= 1:
        raise SettingError(f"debias is a part of the variance over places, from 0 to 1; got {part:g}")
    if part == 0:
        return torch.zeros(0, width)
    if learned is None:
        raise SettingError(
            f"debias: it is not known what {backbone} says of places; `kshot train background` finds out, with any "
            "photographs, for --set method.weights=RUN"
        )
    found = learned.tensor(NAME).float()  # (r, width) orthogonal, longest first
    held = found.square().sum(1).cumsum(0)
    rank = int((held < part * held[-1:] * (1 - 1e-6)).sum()) + 1  # in float32 the last sums are level
    return F.normalize(found[:rank], dim=1)


def without(features: FeatureMap, rows: Tensor) -> FeatureMap:
    """Features whose cells, of unit length again, hold nothing along the rows (rank, c); the token stays as it is."""
    if not len(rows):
        return features
    tokens = F.normalize(_projected(features.tokens, rows), dim=1)
    return replace(features, features=tokens.T.reshape(features.features.shape))


def background_without(universal: Learned | None, rows: Tensor) -> Learned | None:
    """A universal background whose means hold nothing along the rows; they keep their lengths, which say how wide."""
    if universal is None or not len(rows):
        return universal
    means = universal.tensor("means").float()
    fewer = F.normalize(_projected(means, rows), dim=1) * means.norm(dim=1, keepdim=True)
    return Learned(universal.facts, {**universal.tensors, "means": fewer})


def _projected(tokens: Tensor, rows: Tensor) -> Tensor:
    return torch.addmm(tokens, tokens @ rows.T, rows, alpha=-1)
