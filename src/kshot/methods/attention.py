"""Masked cross-attention: a query patch takes the mask values of the support patches that it attends to.

DCAMA (Shi et al., ECCV 2022, section 3.2): softmax(q k^T / t) over the patch tokens of all supports, with their masks
as the values; more shots are more keys. Here the values are the shares of each class and of the shared background, so
the attended values of a query patch sum to one, and the log ratio of a class to the background is zero where they
balance.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.methods import base
from kshot.methods._support_tokens import SupportTokens, base_rates, log_ratios, query_tokens, stack_supports
from kshot.ops.geometry import FeatureMap
from kshot.ops.similarity import cosines_less_one


@dataclass(frozen=True)
class Settings:
    """Chosen on VOC development data: the paper trains projections and a mixer; here features are used as they are."""

    temperature: float = 0.05
    """Of the softmax over cosines."""
    balance: float = 0.8
    """Power of each class's fraction of the support patches that its attention is divided by: with 0 a small object
    hardly ever outweighs its background, with 1 the sizes of objects do not count."""


class Task(base.Task):
    """Logits are log ratios of attended mask values."""

    method = "attention"
    Settings = Settings
    reads_banks = True

    def _fitted(self) -> SupportTokens:
        return stack_supports(self.supports).for_products()

    def _score(self, features: FeatureMap) -> Tensor:
        tokens, labels = self.fitted[:2]
        blocks = cosines_less_one(query_tokens(features), tokens, 1 / self.settings.temperature)
        shares = torch.cat([block.float().softmax(1) @ labels for block in blocks])
        shares = shares / base_rates(labels) ** self.settings.balance
        logits: Tensor = log_ratios(shares).T.reshape(-1, *features.grid_hw)
        return logits
