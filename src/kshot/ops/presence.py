"""Whether a class is in an image at all."""

import torch
from torch import Tensor

from kshot.ops.geometry import Frame, coverage

# A class must hold this share of the image, and no less than this many cells, to be believed.
_SHARE, _CELLS = 0.004, 2.0


def presence(logits: Tensor, frame: Frame) -> Tensor:
    """Probability (N,) in 0..1 that each class is in the image, from logits (N+1, gh, gw).

    The mean probability over the class's best cells, as many as the smallest object that counts would cover: one
    lucky cell does not make an object, and an object need not fill the image.
    """
    part = coverage(frame).to(logits)
    probabilities = (logits.softmax(0)[1:] * part).flatten(1)
    count = min(max(_CELLS, _SHARE * float(part.sum())), probabilities.shape[1])
    whole = int(count)
    best = probabilities.topk(min(whole + 1, probabilities.shape[1]), 1).values
    weights = torch.ones(best.shape[1]).to(best)
    if best.shape[1] > whole:
        weights[-1] = count - whole
    return best @ weights / weights.sum()
