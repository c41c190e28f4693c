"""Many tokens as few weighted ones, the same whatever their order, and added to whenever more come.

Which tokens stay is decided by a hash of each token alone: those with the lowest hashes are an even draw from all
tokens that ever came, without a memory of those that went (bottom-k sketches: Cohen and Kaplan, PODC 2007). So a
coreset of a coreset and of new tokens keeps the tokens that one of all of them at once would (merge and reduce:
Har-Peled and Mazumdar, STOC 2004).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kshot.ops.similarity import cosines

_FLOOR = 1e-6
_FIXED_POINT = 2.0**36
_ASSIGNED = 16  # times as many tokens find their nearest one in a coreset; of more, evenly drawn ones do


def coreset(sums: Tensor, labels: Tensor, tokens_at: Callable[[Tensor], Tensor], most: int) -> tuple[Tensor, Tensor]:
    """At most `most` tokens (m, c) of each kind, and labels (m, k) of them that sum to what all labels sum to.

    A token is of the kind that it shows most of; one whose labels are zero is of none. Each token that stays takes over
    the labels of those of its kind that it is nearest to.
    sums: (n,) see `pooling.token_sums`. labels: (n, k), how much each token counts for each kind. tokens_at: the tokens
    at some indices; only those that are drawn are read.
    """
    kinds, shown, order = labels.argmax(1), labels.sum(1) > 0, hashes(sums)
    parts = list[tuple[Tensor, Tensor]]()
    for kind in range(labels.shape[1]):
        places = torch.nonzero(shown & (kinds == kind))[:, 0]
        own = labels[places]
        if len(places) <= most:
            parts.append((tokens_at(places), own))
            continue
        drawn = order[places].argsort(stable=True)[: _ASSIGNED * most]
        own = own[drawn] * (own.sum(0) / own[drawn].sum(0).clamp(min=_FLOOR))
        tokens = tokens_at(places[drawn])
        nearest = torch.cat([cosine.argmax(1) for cosine in cosines(tokens, tokens[:most])])
        parts.append((tokens[:most], own.new_zeros(most, own.shape[1]).index_add_(0, nearest, own)))
    tokens, kept = (torch.cat(each) for each in zip(*parts, strict=True))
    return tokens, kept.contiguous()


def hashes(sums: Tensor) -> Tensor:
    """(n,) int64 hashes of sums (n,) float64, spread evenly and equal for equal sums (SplitMix64: Steele, Lea and
    Flood, OOPSLA 2014). The last digits, which depend on the order of the summands, do not count."""
    mixed = (sums.double().cpu() * _FIXED_POINT).round().long().numpy().astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy(((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64))
