"""What episodes are learned by: cross-entropy weighted by presence, and PANet's alignment."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.methods.base import Support
from kshot.methods.prototype import compare, prototypes


class Cells(NamedTuple):
    """logits: (n, k). targets: (n, k), the part of each cell that shows each class; what is ignored is in none."""

    logits: Tensor
    targets: Tensor


def cells_of(logits: Tensor, shown: Support) -> Cells:
    """Logits (N+1, gh, gw) beside what a marked image shows."""
    targets = torch.cat([shown.background[None], shown.masks])
    return Cells(logits.flatten(1).T, targets.flatten(1).T)


def presence_weights(targets: Tensor, power: float) -> Tensor:
    """(k,) weights by each class's share of what is labelled in the batch: (1 / share) ** power, 0 for absent classes.

    They are scaled so that the mean weight over all that is labelled is 1. At power 1 every class that is present
    counts the same, however small; at 0 every pixel does.
    """
    share = targets.sum(0) / targets.sum().clamp(min=1e-6)
    weights = torch.where(share > 0, share.clamp(min=1e-6) ** -power, 0.0)
    return weights / (share * weights).sum().clamp(min=1e-6)


def cross_entropy(cells: Sequence[Cells], power: float) -> Tensor:
    """Cross-entropy over all cells of a batch, classes weighted by `presence_weights`; zero where nothing is labelled.

    Cells with several classes count in part for each.
    """
    logits = torch.cat([each.logits for each in cells]).float()
    targets = torch.cat([each.targets for each in cells])
    weights = presence_weights(targets, power)
    told = -(targets * weights * logits.log_softmax(1)).sum()
    return told / targets.sum().clamp(min=1e-6)


def alignment(supports: Sequence[Support], query: Support, logits: Tensor, scale: float) -> list[Cells]:
    """PANet's prototype alignment (section 3.4): the query, as it was segmented, segments its supports in return.

    logits: (N+1, gh, gw) of the query. Cells of each support against its own class and the background, for every way
    that was found anywhere. The segmentation itself gets no gradient through its argmax, as in the paper.
    """
    found = logits.detach().argmax(0)
    labelled = (query.known > 0).float()
    aligned = []
    for way in range(1, len(logits)):
        mask = (found == way).float() * labelled
        if not bool(mask.any()):
            continue
        either = labelled * ((found == way) | (found == 0))
        rows = prototypes([Support(query.features, mask[None], either)])
        for support in supports:
            if bool(support.masks[way - 1].any()):
                own = Support(support.features, support.masks[way - 1 : way], support.known)
                aligned.append(cells_of(compare(support.features, rows, scale), own))
    return aligned
