"""How far a query moves the threshold of a class: by what the class scores in it, and by how much that would fill."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kshot.methods.base import Support
from kshot.ops.geometry import FeatureMap, coverage

_WORST = 0.2  # of the cells of an image, that surely show nothing of the class


def largest(supports: Sequence[Support]) -> Tensor:
    """(N,) the largest part of an image's cells that show something of each class in a support."""
    return torch.stack([(s.masks > 0).sum((1, 2)) / coverage(s.features.frame).sum() for s in supports]).amax(0)


def crowded(margin: Tensor, features: FeatureMap, largest: float) -> Tensor:
    """() the threshold above which a class with that margin (gh, gw) fills no more than `largest` of the image."""
    scores = margin[coverage(features.frame) > 0]
    count = round(largest * len(scores))
    return scores.topk(count + 1).values[-1] if count < len(scores) else scores.new_tensor(-torch.inf)


def middle(plane: Tensor, features: FeatureMap, part: float) -> Tensor:
    """() halfway between what a class scores (gh, gw) in its best cells, `part` of the image, and in the worst."""
    scores = plane[coverage(features.frame) > 0]
    best = scores.topk(max(1, round(part * len(scores)))).values.mean()
    return (best + scores.quantile(_WORST)) / 2
