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
from kshot.methods._support_tokens import SupportTokens, base_rates, log_ratios, stack_supports
from kshot.ops.geometry import FeatureMap
from kshot.ops.similarity import cosines, for_products

# The two directions multiply the same vectors in another order; equal cosines may differ by as much.
_ROUNDING = 1e-5


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
        tokens, labels = self.fitted
        query, settings = for_products(features.tokens), self.settings
        kth = _kth_cosines(tokens, query, settings.neighbours)  # (n,)
        votes = torch.cat([_votes(cosine, kth, labels, settings) for cosine in cosines(query, tokens)])
        votes = (votes + settings.smoothing) / base_rates(labels) ** settings.balance
        logits: Tensor = log_ratios(votes).T.reshape(-1, *features.grid_hw)
        return logits


def _kth_cosines(tokens: Tensor, query: Tensor, neighbours: int) -> Tensor:
    """(n,): the cosine of each support token (n, c) with its k-th nearest query token."""
    return torch.cat([_kth_largest(cosine, neighbours) for cosine in cosines(tokens, query)])


def _kth_largest(values: Tensor, k: int) -> Tensor:
    """(b,) the k-th largest of each row (b, n), or its least; numpy finds it ten times as fast as torch sorts."""
    place = max(0, values.shape[1] - k)
    return torch.from_numpy(np.partition(values.numpy(), place, axis=1)[:, place])


def _votes(cosine: Tensor, kth: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    """(b, N+1) votes that sum to at most 1, from the cosines (b, n) of a block of query tokens."""
    far = cosine < _kth_largest(cosine, settings.neighbours)[:, None]
    mutual = cosine >= kth - _ROUNDING
    weights = cosine.sub_(cosine.amax(1, keepdim=True)).div_(settings.temperature).exp_().masked_fill_(far, 0.0)
    weights = torch.where(mutual, settings.mutual_weight * weights, weights)
    return weights @ labels / weights.sum(1, keepdim=True)
