"""Masked cross-attention: a query cell takes the mask values of the support cells that it attends to.

DCAMA (Shi et al., ECCV 2022, section 3.2): softmax(q k^T / t) over the cells of all supports, with their masks as the
values; more shots are more keys. Here the values are the parts of each class and of the shared background, so what a
query cell receives sums to one, and the logarithm of a class's part over the background's is zero where they balance.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.methods import base
from kshot.methods._support_tokens import Cells, base_rates, gather, log_ratios
from kshot.ops.geometry import FeatureMap
from kshot.ops.similarity import cosines


@dataclass(frozen=True)
class Settings:
    """temperature: of the softmax over cosines. balance: power of each class's part of the support cells that what it
    gives is divided by: at 0 a small object hardly ever outweighs its background, at 1 sizes don't count.

    The paper learns its projections, scales by the root of their width, and learns a mixer of what comes out; frozen
    features of unit length have neither, so both were chosen on VOC development data.
    """

    temperature: float = 0.05
    balance: float = 0.8


class Task(base.Task):
    """Class logits are log ratios of attended mask values."""

    method = "attention"
    Settings = Settings

    def _fitted(self) -> Cells:
        return gather(self.supports)

    def _score(self, features: FeatureMap) -> Tensor:
        tokens, labels = self.fitted
        blocks = cosines(features.tokens, tokens)
        shares = torch.cat([cosine.div_(self.settings.temperature).softmax(1) @ labels for cosine in blocks])
        shares = shares / base_rates(labels) ** self.settings.balance
        logits: Tensor = log_ratios(shares).T.reshape(-1, *features.grid_hw)
        return logits
