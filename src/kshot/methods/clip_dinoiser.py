"""CLIP-DINOiser's background rule (Wysoczańska et al., ECCV 2024, sections 3.3 and 4.1) on the scores of `text`.

Classes are words, images, images with masks, or mixtures of them. A patch of which no class is certain and that shows
no object is background, decided image by image. The method is meant for the backbone `clip-dinoiser`, whose features
are pooled over similar tokens and which predicts objectness. Backbones without objectness get the scores of `text`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.errors import SettingError
from kshot.methods import text
from kshot.ops.geometry import FeatureMap


@dataclass(frozen=True)
class Settings(text.Settings):
    """Those of `text`, and the background rule's. Raises `SettingError` for a value out of range."""

    delta: float = 0.99
    """Probability, above 0.5 and below 1, from which on a class is certain of a patch (the paper's)."""
    object_threshold: float = 0.5
    """Objectness above which a patch shows an object (the paper's)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 < self.delta < 1:
            raise SettingError(f"delta {self.delta}: expected a probability above 0.5 and below 1")


class Task(text.Task):
    """Logits of `text`, where patches without an object need a class that is certain."""

    method = "clip-dinoiser"
    Settings = Settings

    def _score(self, features: FeatureMap) -> Tensor:
        logits, settings = super()._score(features), self.settings
        if features.objectness is None:
            return logits
        uncertain = logits.softmax(0)[1:].amax(0) < settings.delta  # (gh, gw)
        background = uncertain & (features.objectness <= settings.object_threshold)
        # There no class gets more than the log odds of 1 - delta; row 0, the background, stays zero.
        most = torch.full_like(logits, math.log((1 - settings.delta) / settings.delta))
        most[0] = 0
        return torch.where(background, torch.minimum(logits, most), logits)
