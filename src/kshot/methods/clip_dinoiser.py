"""CLIP-DINOiser's decision (Wysoczańska et al., ECCV 2024, sections 3.3 and 4.1), with vectors of any prompt.

Classes are words, images, images with masks, or mixtures of them; a cell that no class is sure of and that shows no
object is background, image by image. Meant for the backbone `clip-dinoiser`, whose features are pooled over what
belongs together and which says what is an object. Where a backbone does not say, the background's own vectors, which
the softmax holds in any case, decide alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.errors import SettingError
from kshot.methods import _class_embeddings, base
from kshot.methods._class_embeddings import Vectors
from kshot.ops.geometry import FeatureMap


@dataclass(frozen=True)
class Settings:
    """delta: a class is sure of a cell from this probability on (0.99). object: objectness that makes an object (0.5).

    scale: the factor on the cosine before the softmax (100). text_share: 0..1, share of the words in the vector of a
    class that has both words and images. least: the cosine that counts as background where the supports show none.
    """

    delta: float = 0.99
    object: float = 0.5
    scale: float = 100.0
    text_share: float = 0.5
    least: float = 0.5

    def __post_init__(self) -> None:
        _class_embeddings.check_share(self.text_share)
        if not 0.5 < self.delta < 1:
            raise SettingError(f"delta {self.delta}: expected a probability above 0.5 and below 1")


class Task(base.Task):
    """Log odds of each class against the background; what is no object has to be surer."""

    method = "clip-dinoiser"
    Settings = Settings
    reads_text = True

    def _fitted(self) -> Vectors:
        return _class_embeddings.fit_vectors(self.supports, self.settings.text_share)

    def _score(self, features: FeatureMap) -> Tensor:
        settings, fitted = self.settings, self.fitted
        logits: Tensor = fitted.logits(features.tokens, settings.scale, settings.least).reshape(-1, *features.grid_hw)
        if features.objectness is None:
            return logits
        unsure = logits.softmax(0)[1:].amax(0) < settings.delta  # (gh, gw)
        background = unsure & (features.objectness <= settings.object)
        # There every class is told as surely off as it would have had to be sure of itself; row 0 stays zero.
        most = torch.full_like(logits, math.log((1 - settings.delta) / settings.delta))
        most[0] = 0
        return torch.where(background, torch.minimum(logits, most), logits)
