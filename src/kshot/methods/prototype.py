"""PANet's prototypes (Wang et al., ICCV 2019, section 3): one mean feature per class, one for the background.

Cells are compared as they are, or behind a projection that `kshot train episodic` learned on base classes.
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
    """scale: the factor on the cosine before the softmax (alpha in the paper, 20).

    weights: file or folder of a learned projection; without one, the frozen features are compared as they are.
    """

    scale: float = 20.0
    weights: str = field(default="", repr=False)


def project(features: FeatureMap, projection: Tensor) -> FeatureMap:
    """The cells behind a projection (d, c), of unit length again. Has a gradient."""
    return replace(features, features=F.normalize(torch.einsum("dc,chw->dhw", projection, features.features), dim=0))


def prototypes(supports: Sequence[base.Support]) -> Tensor:
    """(N+1, c) of unit length; row 0 is the background shared by all supports. Has a gradient."""
    tokens = torch.cat([support.features.tokens for support in supports])  # (n, c)
    classes = stack_tokens([support.masks for support in supports])  # (N, n)
    background = stack_tokens([support.background for support in supports])  # (n,)
    return masked_average(tokens, torch.cat([background[None], classes]))


def compare(features: FeatureMap, rows: Tensor, scale: float) -> Tensor:
    """(N+1, gh, gw): `scale` times how much nearer cells are to each row than to row 0. Has a gradient."""
    cosine = torch.einsum("kc,chw->khw", rows, features.features)
    return scale * (cosine - cosine[:1])


class Task(base.Task):
    """Class logits are `scale` times how much nearer a cell is to a class's prototype than to the background's."""

    method = "prototype"
    Settings = Settings

    def _fitted(self) -> Tensor:
        return prototypes([replace(support, features=self._seen(support.features)) for support in self.supports])

    def _score(self, features: FeatureMap) -> Tensor:
        return compare(self._seen(features), self.fitted, self.settings.scale)

    def _seen(self, features: FeatureMap) -> FeatureMap:
        return features if self.learned is None else project(features, self.learned.tensor("projection.weight"))
