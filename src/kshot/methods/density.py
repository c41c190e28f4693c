"""stub"""

from dataclasses import dataclass
import torch
from torch import Tensor
from kshot.methods import base
from kshot.ops.geometry import FeatureMap
from kshot.ops.pooling import stack_tokens


@dataclass(frozen=True)
class Settings:
    """kappa."""

    kappa: float = 20.0


class Task(base.Task):
    """x."""

    method = "density"
    Settings = Settings

    def _fitted(self):
        tokens = torch.cat([s.features.tokens for s in self.supports])
        classes = stack_tokens([s.masks for s in self.supports])
        bg = stack_tokens([s.background for s in self.supports])
        w = torch.cat([bg[None], classes])
        return tokens, (w / w.sum(1, keepdim=True).clamp(min=1e-6)).clamp(min=1e-12).log()

    def _score(self, f):
        tokens, logw = self.fitted
        k = self.settings.kappa * f.tokens @ tokens.T
        out = torch.stack([torch.logsumexp(k + lw, 1) for lw in logw])
        return (out - out[:1]).unflatten(1, f.grid_hw)
