"""Whether a class is in an image at all."""

import torch
from torch import Tensor

from kshot.ops.geometry import Frame, coverage

# The smallest object that counts covers this fraction of the image, and no less than this many patches.
_FRACTION, _PATCHES = 0.004, 2.0


def presence(logits: Tensor, frame: Frame) -> Tensor:
    """Probability (N,) in 0..1 that each class is in the image, from logits (N+1, gh, gw).

    It is the mean probability over the class's best patches, as many as the smallest object that counts would cover: a
    single patch makes no object, and an object need not fill the image.
    """
    inside = coverage(frame).to(logits)
    probabilities = (logits.softmax(0)[1:] * inside).flatten(1)
    count = min(max(_PATCHES, _FRACTION * float(inside.sum())), probabilities.shape[1])
    whole = int(count)
    best = probabilities.topk(min(whole + 1, probabilities.shape[1]), 1).values
    weights = torch.ones(best.shape[1]).to(best)
    if best.shape[1] > whole:
        weights[-1] = count - whole
    return best @ weights / weights.sum()
