"""PANet's prototypes (Wang et al., ICCV 2019, section 3): one mean feature per class, one for the background.

Patch tokens are compared as they are, or after a projection that `kshot train episodic` learned on base classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods import base
from kshot.ops.geometry import FeatureMap
from kshot.ops.pooling import masked_average, stack_tokens


@dataclass(frozen=True)
class Settings:
    """The published scale, and a learned projection."""

    scale: float = 20.0
    """Factor on the cosine before the softmax (alpha in the paper)."""
    weights: str = field(default="", repr=False)
    """File or folder of a learned projection; empty to compare frozen features as they are."""


def project(features: FeatureMap, projection: Tensor) -> FeatureMap:
    """Features after a projection (d, c), of unit length again. Differentiable."""
    return replace(features, features=F.normalize(torch.einsum("dc,chw->dhw", projection, features.features), dim=0))


def prototypes(supports: Sequence[base.Support]) -> Tensor:
    """(N+1, c) of unit length; row 0 is the background shared by all supports. Differentiable."""
    tokens = torch.cat([support.features.tokens for support in supports])  # (n, c)
    classes = stack_tokens([support.masks for support in supports])  # (N, n)
    background = stack_tokens([support.background for support in supports])  # (n,)
    return masked_average(tokens, torch.cat([background[None], classes]))


def compare(features: FeatureMap, rows: Tensor, scale: float) -> Tensor:
    """(N+1, gh, gw): `scale` x the cosine with each of `rows` (N+1, c), less that with row 0. Differentiable."""
    cosine = torch.einsum("kc,chw->khw", rows, features.features)
    return scale * (cosine - cosine[:1])


class Task(base.Task):
    """Logits are `scale` x the cosine with a class's prototype, less that with the background's."""

    method = "prototype"
    Settings = Settings
    reads_banks = True

    def _fitted(self) -> Tensor:
        return prototypes([replace(support, features=self._projected(support.features)) for support in self.supports])

    def _score(self, features: FeatureMap) -> Tensor:
        return compare(self._projected(features), self.fitted, self.settings.scale)

    def _projected(self, features: FeatureMap) -> FeatureMap:
        return features if self.learned is None else project(features, self.learned.tensor("projection.weight"))
