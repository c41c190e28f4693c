"""Kernel densities of foreground and background cells, and the logarithm of their ratio.

A cell belongs to a class as far as the class's support cells lie denser around it than the background's: the log
ratio of two von Mises-Fisher kernel densities, each normalised by the number of its cells, so that zero is the natural
threshold and a query may hold nothing of the class (density ratios as in FROST-like few-shot methods; the kernel after
Banerjee et al., JMLR 2005, section 2). Two more steps use the query itself: ratios are averaged over cells that look
alike (the region readout's idea), and the cells that are then confident join the supports of a second estimate, with
a share that falls to nothing when no cell is.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.methods import base
from kshot.ops.geometry import FeatureMap, coverage
from kshot.ops.pooling import stack_tokens
from kshot.ops.similarity import vmf_means

_FLOOR = 1e-12


@dataclass(frozen=True)
class Settings:
    """Chosen on the training half of the development data (benchmarks/accuracy).

    kappa: concentration of the kernel. affinity: sharpness of the average over alike cells of the query.
    share: most that the query's own cells count for in the second estimate; 0 for one estimate only.
    mass: cells of a class in the query at which they count for half of that. doubt: logits by which the second
    estimate mistrusts a class. sharpness: of the confidences that it starts from.
    """

    kappa: float = 20.0
    affinity: float = 10.0
    share: float = 0.5
    mass: float = 40.0
    doubt: float = 1.0
    sharpness: float = 4.0


class _Fitted(NamedTuple):
    tokens: Tensor  # (n, c)
    weights: Tensor  # (n, N+1), column 0 is the background shared by all supports


class Task(base.Task):
    """Log density ratios of classes to background; the classes are decided jointly."""

    method = "density"
    Settings = Settings

    def _fitted(self) -> _Fitted:
        tokens = torch.cat([support.features.tokens for support in self.supports])
        classes = stack_tokens([support.masks for support in self.supports])
        background = stack_tokens([support.background for support in self.supports])
        return _Fitted(tokens, torch.cat([background[None], classes]).T.contiguous())

    def _score(self, features: FeatureMap) -> Tensor:
        settings, query = self.settings, features.tokens.contiguous()
        tokens, weights = self.fitted
        part = coverage(features.frame).flatten()
        own = query @ query.T  # (q, q)
        alike = (settings.affinity * own + part.log()).softmax(1)
        first = vmf_means(query, tokens, weights, settings.kappa)  # (q, N+1)
        ratios = alike @ _log_ratios(first)
        if settings.share > 0:
            labels = _confident(ratios, settings) * part[:, None]
            mass = labels.sum(0)
            share = settings.share * mass / (mass + settings.mass)
            second = own.sub_(1).mul_(settings.kappa).exp_() @ labels / mass.clamp(min=1e-6)
            ratios = alike @ _log_ratios((1 - share) * first + share * second)
        logits: Tensor = ratios.T.reshape(-1, *features.grid_hw)
        return logits


def _confident(ratios: Tensor, settings: Settings) -> Tensor:
    """(q, N+1) what the first estimate makes of the query's own cells, in favour of the background."""
    logits = settings.sharpness * ratios
    logits[:, 1:] -= settings.doubt
    return logits.softmax(1)


def _log_ratios(densities: Tensor) -> Tensor:
    """(q, N+1) log ratios to the background, whose own are zero."""
    logs = (densities + _FLOOR).log()
    return logs - logs[:, :1]
