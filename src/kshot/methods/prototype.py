"""PANet's prototypes (Wang et al., ICCV 2019, section 3): one mean feature per class, one for the background.

Cells are compared as they are, or behind a projection that `kshot train episodic` learned on base classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.formats.learned import read_learned
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


def prepare(settings: Settings) -> None:
    """Read the weights, which are kept; raises `SettingError`."""
    if settings.weights:
        read_learned(settings.weights)


def prototypes(supports: Sequence[base.Support], projection: Tensor | None = None) -> Tensor:
    """(N+1, d) of unit length; row 0 is the background shared by all supports. projection: (d, c). Has a gradient."""
    tokens = torch.cat([support.features.tokens for support in supports])  # (n, c)
    classes = stack_tokens([support.masks for support in supports])  # (N, n)
    background = stack_tokens([support.background for support in supports])  # (n,)
    return masked_average(_projected(tokens, projection), torch.cat([background[None], classes]))


def compare(features: FeatureMap, rows: Tensor, scale: float, projection: Tensor | None = None) -> Tensor:
    """(N+1, gh, gw): `scale` times how much nearer cells are to each row than to row 0. Has a gradient."""
    cosine = rows @ _projected(features.tokens, projection).T  # (N+1, n)
    return scale * (cosine - cosine[:1]).reshape(-1, *features.grid_hw)


def _projected(tokens: Tensor, projection: Tensor | None) -> Tensor:
    return tokens if projection is None else F.normalize(tokens @ projection.T, dim=-1)


class Task(base.Task):
    """Class logits are `scale` times how much nearer a cell is to a class's prototype than to the background's."""

    method = "prototype"
    Settings = Settings

    def _fitted(self) -> Tensor:
        return prototypes(self.supports, self._projection)

    def _score(self, features: FeatureMap) -> Tensor:
        return compare(features, self.fitted, self.settings.scale, self._projection)

    @property
    def _projection(self) -> Tensor | None:
        return None if self.learned is None else self.learned.tensors["projection.weight"]
