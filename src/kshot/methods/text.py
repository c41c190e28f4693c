"""Words as classes: MaskCLIP (Zhou et al., ECCV 2022, section 3.2; prompts after CLIP, Radford et al., ICML 2021).

A cell takes the class whose text embedding it is nearest to, by a softmax over 100 x cosine, against a list of
background words. Images with masks join as mean features, so that words and images mix in one task; a task of images
alone needs no words and runs on any backbone.
"""

from dataclasses import dataclass

from torch import Tensor

from kshot.methods import _class_embeddings, base
from kshot.methods._class_embeddings import Vectors
from kshot.ops.geometry import FeatureMap


@dataclass(frozen=True)
class Settings:
    """scale: the factor on the cosine before the softmax (CLIP's, 100).

    text_share: 0..1, share of the words in the vector of a class that has both words and images.
    least: the cosine that counts as background where the supports show none.
    """

    scale: float = 100.0
    text_share: float = 0.5
    least: float = 0.5

    def __post_init__(self) -> None:
        _class_embeddings.check_share(self.text_share)


class Task(base.Task):
    """Log odds of each class against the background in CLIP's softmax."""

    method = "text"
    Settings = Settings
    reads_text = True

    def _fitted(self) -> Vectors:
        return _class_embeddings.fit_vectors(self.supports, self.settings.text_share)

    def _score(self, features: FeatureMap) -> Tensor:
        logits: Tensor = self.fitted.logits(features.tokens, self.settings.scale, self.settings.least)
        return logits.reshape(-1, *features.grid_hw)
