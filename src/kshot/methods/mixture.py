"""Prototype mixture models (Yang et al., ECCV 2020, section 3): several prototypes per class and of the background.

Expectation maximisation with the kernel exp(kappa mu^T s) finds K prototypes of a class's support cells and K of the
background's. The paper feeds them to trained layers; without training the mixtures themselves decide: a class's logit
is the logarithm of its likelihood over the background's, which is zero where neither explains the cell better.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.methods import base
from kshot.methods._support_tokens import gather
from kshot.ops.clustering import vmf_mixture
from kshot.ops.geometry import FeatureMap


@dataclass(frozen=True)
class Settings:
    """The paper's: prototypes per mixture, concentration of the kernel, and steps of expectation maximisation."""

    prototypes: int = 3
    kappa: float = 20.0
    steps: int = 10


class Task(base.Task):
    """Class logits are log likelihood ratios of mixtures."""

    method = "mixture"
    Settings = Settings

    def _fitted(self) -> tuple[Tensor, ...]:
        """Prototypes (k, c) of the background and of each class; none for a background that was never seen."""
        tokens, labels = gather(self.supports)
        chosen = self.settings
        return tuple(
            vmf_mixture(tokens, weights, chosen.prototypes, chosen.kappa, chosen.steps).means
            if bool((weights > 0).any())
            else tokens.new_zeros(0, tokens.shape[1])
            for weights in labels.T
        )

    def _score(self, features: FeatureMap) -> Tensor:
        logs = torch.stack([self._log_likelihood(features, means) for means in self.fitted])  # (N+1, gh, gw)
        return logs - logs[:1]

    def _log_likelihood(self, features: FeatureMap, means: Tensor) -> Tensor:
        """(gh, gw), up to the kernel's normalisation."""
        if not len(means):  # as far from everything as a right angle
            return features.features.new_zeros(features.grid_hw)
        cosine = torch.einsum("kc,chw->khw", means, features.features)
        total: Tensor = (self.settings.kappa * cosine).logsumexp(0)
        return total - math.log(len(means))
