"""PANet's prototypes (Wang et al., ICCV 2019, section 3): one mean feature per class, one for the background."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.methods import base
from kshot.ops.geometry import FeatureMap
from kshot.ops.pooling import masked_average, stack_tokens


@dataclass(frozen=True)
class Settings:
    """scale: the factor on the cosine before the softmax (alpha in the paper, 20)."""

    scale: float = 20.0


class Task(base.Task):
    """Class logits are `scale` times how much nearer a cell is to a class's prototype than to the background's."""

    method = "prototype"
    Settings = Settings

    def _fitted(self) -> Tensor:
        """Prototypes (N+1, c): row 0 is the background shared by all supports."""
        tokens = torch.cat([support.features.tokens for support in self.supports])  # (n, c)
        classes = stack_tokens([support.masks for support in self.supports])  # (N, n)
        background = stack_tokens([support.background for support in self.supports])  # (n,)
        return masked_average(tokens, torch.cat([background[None], classes]))

    def _score(self, features: FeatureMap) -> Tensor:
        cosine = torch.einsum("kc,chw->khw", self.fitted, features.features)
        logits: Tensor = self.settings.scale * (cosine - cosine[:1])
        return logits
