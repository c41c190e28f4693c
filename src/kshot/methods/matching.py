"""Dense matching: a query cell takes the labels of its nearest support cells, and mutual neighbours count more.

Labels travel as in Hummingbird (Balazevic et al., NeurIPS 2023, section 3.2): the k nearest support cells vote with
softmax(cos / t). Matching runs both ways, as in Matcher (Liu et al., ICLR 2024, section 3.1): a support cell that has
the query cell among its own k nearest of the query is a mutual neighbour (k-reciprocal, Zhong et al., CVPR 2017).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.methods import base
from kshot.methods._support_tokens import Cells, base_rates, gather, log_ratios
from kshot.ops.geometry import FeatureMap
from kshot.ops.similarity import cosines

# The two ways multiply the same vectors in another order; equal cosines may differ by as much.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Settings:
    """neighbours, temperature: Hummingbird's 30 and 0.02.

    balance: power of each class's part of the support cells that its votes are divided by; 0 for plain votes.
    mutual: how many times the vote of a mutual neighbour counts; 1 for label transfer alone. smoothing: votes (of a
    total of 1) given to every class and the background beforehand, so that unanimity is no certainty. They are not
    in the papers; balance was chosen on VOC development data, where mutual at 1, 2 and 4 lay within 0.6 points of mIoU.
    """

    neighbours: int = 30
    temperature: float = 0.02
    balance: float = 0.8
    mutual: float = 2.0
    smoothing: float = 0.01


class Task(base.Task):
    """Class logits are log ratios of votes."""

    method = "matching"
    Settings = Settings

    def _fitted(self) -> Cells:
        return gather(self.supports)

    def _score(self, features: FeatureMap) -> Tensor:
        tokens, labels = self.fitted
        query, settings = features.tokens.contiguous(), self.settings
        reach = _reach(tokens, query, settings.neighbours)  # (n,)
        votes = torch.cat([_votes(cosine, reach, labels, settings) for cosine in cosines(query, tokens)])
        votes = (votes + settings.smoothing) / base_rates(labels) ** settings.balance
        logits: Tensor = log_ratios(votes).T.reshape(-1, *features.grid_hw)
        return logits


def _reach(tokens: Tensor, query: Tensor, neighbours: int) -> Tensor:
    """(n,): the cosine of each support cell's k-th nearest query cell."""
    count = min(neighbours, len(query))
    return torch.cat([cosine.topk(count).values[:, -1] for cosine in cosines(tokens, query)])


def _votes(cosine: Tensor, reach: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    """(b, N+1) votes that sum to at most 1, from cosines (b, n) of a block of query cells."""
    near, which = cosine.topk(min(settings.neighbours, cosine.shape[1]))
    weights = (near / settings.temperature).softmax(1)
    weights = torch.where(near >= reach[which] - _ROUNDING, settings.mutual * weights, weights)
    weights = weights / weights.sum(1, keepdim=True)
    return (weights[..., None] * labels[which]).sum(1)
