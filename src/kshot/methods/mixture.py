"""Prototype mixture models (Yang et al., ECCV 2020, section 3): several prototypes per class and of the background.

Expectation maximisation with the kernel exp(kappa mu^T s) finds K prototypes of a class's support tokens and K of the
background's. The paper feeds them to trained layers. Here no layer is trained, and the mixtures decide: a class's logit
is its log-likelihood ratio to the background, which is zero where neither explains the token better.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.methods import base
from kshot.methods._support_tokens import stack_supports
from kshot.ops.clustering import vmf_mixture
from kshot.ops.geometry import FeatureMap


@dataclass(frozen=True)
class Settings:
    """The paper's."""

    prototypes: int = 3
    """Of each class, and of the background."""
    kappa: float = 20.0
    """Concentration of the kernel."""
    steps: int = 10
    """Of expectation maximisation."""


class Task(base.Task):
    """Logits are log-likelihood ratios of mixtures."""

    method = "mixture"
    Settings = Settings
    reads_banks = True

    def _fitted(self) -> tuple[Tensor, ...]:
        """Prototypes (k, c) of the background and of each class; k is 0 for what no support shows."""
        tokens, labels = stack_supports(self.supports)[:2]
        settings = self.settings
        return tuple(
            vmf_mixture(tokens, weights, settings.prototypes, settings.kappa, settings.steps).means
            if bool((weights > 0).any())
            else tokens.new_zeros(0, tokens.shape[1])
            for weights in labels.T
        )

    def _score(self, features: FeatureMap) -> Tensor:
        logs = torch.stack([self._log_likelihood(features, means) for means in self.fitted])  # (N+1, gh, gw)
        return logs - logs[:1]

    def _log_likelihood(self, features: FeatureMap, means: Tensor) -> Tensor:
        """(gh, gw), up to the kernel's normalisation."""
        if not len(means):  # at a right angle to every token
            return features.features.new_zeros(features.grid_hw)
        cosine = torch.einsum("kc,chw->khw", means, features.features)
        total: Tensor = (self.settings.kappa * cosine).logsumexp(0)
        return total - math.log(len(means))
