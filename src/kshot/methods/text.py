"""Words as classes: MaskCLIP (Zhou et al., ECCV 2022, section 3.2; prompts after CLIP, Radford et al., ICML 2021).

A patch takes the class whose text embedding its token is nearest to, by a softmax over 100 x cosine, against a list of
background words. Images with masks join as mean tokens, so words and images mix in one task. A task of images alone
needs no words and runs on any backbone.
"""

from dataclasses import dataclass

from torch import Tensor

from kshot.errors import SettingError
from kshot.methods import base
from kshot.methods._class_embeddings import ClassPrototypes, fit_prototypes
from kshot.ops.geometry import FeatureMap


@dataclass(frozen=True)
class Settings:
    """The published scale, and how words and images mix. Raises `SettingError` for a share outside 0..1."""

    scale: float = 100.0
    """Factor on the cosine before the softmax (CLIP's)."""
    text_share: float = 0.5
    """Share, in 0..1, of the words in the prototype of a class that has both words and images."""
    default_background_similarity: float = 0.5
    """Cosine that counts as background where the supports show none."""

    def __post_init__(self) -> None:
        if not 0 <= self.text_share <= 1:
            raise SettingError(f"text_share {self.text_share}: expected a share in 0..1")


class Task(base.Task):
    """Logits are log odds of each class against the background in CLIP's softmax."""

    method = "text"
    Settings = Settings
    reads_text = True

    def _fitted(self) -> ClassPrototypes:
        return fit_prototypes(self.supports, self.settings.text_share)

    def _score(self, features: FeatureMap) -> Tensor:
        settings = self.settings
        logits: Tensor = self.fitted.logits(features.tokens, settings.scale, settings.default_background_similarity)
        return logits.reshape(-1, *features.grid_hw)
