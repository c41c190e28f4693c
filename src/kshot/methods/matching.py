"""Dense matching: a query patch takes the labels of its nearest support patches, and mutual neighbours count more.

Labels are transferred as in Hummingbird (Balazevic et al., NeurIPS 2023, section 3.2): the k nearest support patches
vote with softmax(cos / t). Matching runs in both directions, as in Matcher (Liu et al., ICLR 2024, section 3.1): a
support patch that has the query patch among its own k nearest is a mutual neighbour (k-reciprocal, Zhong et al., CVPR
2017).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kshot.methods import base
from kshot.methods._support_tokens import SupportTokens, base_rates, log_ratios, query_tokens, stack_supports
from kshot.ops.geometry import FeatureMap
from kshot.ops.similarity import cosines_less_one

# The two directions multiply the same vectors in another order; equal cosines may differ by as much.
_ROUNDING = 1e-5
_ROWS = 128  # of cosines, which pass many times through the processor's cache


@dataclass(frozen=True)
class Settings:
    """`neighbours` and `temperature` are Hummingbird's; the others, not in the papers, were chosen on VOC development
    data, where `mutual_weight` at 1, 2 and 4 lay within 0.6 points of mIoU."""

    neighbours: int = 30
    """Nearest support patches that vote on a query patch."""
    temperature: float = 0.02
    """Of the softmax over their cosines."""
    balance: float = 0.8
    """Power of each class's fraction of the support patches that its votes are divided by; 0 for plain votes."""
    mutual_weight: float = 2.0
    """How many times the vote of a mutual neighbour counts; 1 for label transfer alone."""
    smoothing: float = 0.01
    """Votes, of a total of 1, that every class and the background have beforehand, so that no decision is certain."""


class Task(base.Task):
    """Logits are log ratios of votes."""

    method = "matching"
    Settings = Settings
    reads_banks = True

    def _fitted(self) -> SupportTokens:
        return stack_supports(self.supports).for_products()

    def _score(self, features: FeatureMap) -> Tensor:
        tokens, labels = self.fitted[:2]
        query, settings = query_tokens(features), self.settings
        neighbours = [_nearest(block, settings.neighbours)[0] for block in cosines_less_one(tokens, query)]
        kth, values = torch.cat(neighbours), torch.cat([labels, torch.ones(len(labels), 1)], 1)
        blocks = (rows for block in cosines_less_one(query, tokens) for rows in block.split(_ROWS))
        votes = torch.cat([_votes(rows, kth, values, settings) for rows in blocks])
        votes = (votes + settings.smoothing) / base_rates(labels) ** settings.balance
        logits: Tensor = log_ratios(votes).T.reshape(-1, *features.grid_hw)
        return logits


def _nearest(similar: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(b,) float32 the k-th largest of each row (b, n) of cosines less one, or its least, and (b,) the largest.

    numpy finds them many times as fast as torch sorts. The bits of numbers below zero, read as integers, are the
    larger, the lower the number is.
    """
    if similar.dtype == torch.bfloat16:
        bits, place = similar.clamp(max=0).view(torch.int16).numpy().view(np.uint16), min(k, similar.shape[1]) - 1
        first = np.partition(bits, place, axis=1)[:, : place + 1]
        ends = torch.from_numpy(np.stack([first[:, -1], first.min(1)]).view(np.int16)).view(torch.bfloat16).float()
    else:
        place = max(0, similar.shape[1] - k)
        first = np.partition(similar.numpy(), place, axis=1)[:, place:]
        ends = torch.from_numpy(np.stack([first[:, 0], first.max(1)]))
    kth, best = ends
    return kth, best


def _votes(similar: Tensor, kth: Tensor, values: Tensor, settings: Settings) -> Tensor:
    """(b, N+1) votes that sum to at most 1, from cosines less one (b, n) of a block of query tokens.

    kth: (n,) of each support token with its k-th nearest query token. values: (n, N+2) labels, and ones.
    """
    own, best = (each[:, None] for each in _nearest(similar, settings.neighbours))
    similar = similar.float()
    # As numbers, not truth values, by which products are slow.
    near, mutual = torch.empty_like(similar), torch.empty_like(similar)
    torch.ge(similar, own, out=near)
    torch.ge(similar, kth - _ROUNDING, out=mutual)
    counts = mutual.mul_(settings.mutual_weight - 1).add_(1).mul_(near)
    sums = similar.sub_(best).div_(settings.temperature).exp_().mul_(counts) @ values
    return sums[:, :-1] / sums[:, -1:]
