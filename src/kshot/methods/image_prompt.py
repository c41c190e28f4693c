"""A whole support image as the prompt, without a mask: the baseline of few-shot segmentation with CLIP-like models.

The class vector is the embedding of the whole image where others have a text's (the image prompts of CLIPSeg,
Lüddecke and Ecker, CVPR 2022, section 3.2, put on CLIP-DINOiser). Settings choose how much the image is narrowed down:
not at all, to its salient region, or to the mask. The background, which every class has to beat, is what the same
prompt leaves out: cells outside of the salient region, or outside of the mask.
"""

from dataclasses import dataclass

from torch import Tensor

from kshot.errors import SettingError
from kshot.methods import _class_embeddings, base
from kshot.methods._class_embeddings import Vectors
from kshot.ops.geometry import FeatureMap

_PROMPTS = ("whole", "object", "mask")


@dataclass(frozen=True)
class Settings:
    """prompt: "whole" image, "object" (cells weighted by objectness or salience) or "mask" (salience without one).

    token: whether a whole image is the backbone's own image token where it has one, instead of the mean of the cells.
    text_share: 0..1, share of the words in the vector of a class that has both words and images. scale: the factor on
    the cosine before the softmax. least: the cosine that counts as background where the supports show none.
    """

    prompt: str = "whole"
    token: bool = True
    text_share: float = 0.5
    scale: float = 100.0
    least: float = 0.5

    def __post_init__(self) -> None:
        _class_embeddings.check_share(self.text_share)
        if self.prompt not in _PROMPTS:
            raise SettingError(f"prompt {self.prompt!r} of image-prompt: use {', '.join(_PROMPTS)}")


class Task(base.Task):
    """Log odds of each class against the background, by the cosine with what the support images look like."""

    method = "image-prompt"
    Settings = Settings
    reads_text = True

    def _fitted(self) -> Vectors:
        settings, supports = self.settings, self.supports
        if settings.prompt != "mask":
            supports = tuple(_class_embeddings.as_salient(support) for support in supports)
        if settings.prompt != "whole":
            return _class_embeddings.fit_vectors(supports, settings.text_share)
        # A whole image lies between its object and its ground, and a token beside both: where zero is, the images say.
        vectors = _class_embeddings.fit_vectors(supports, settings.text_share, self._whole)
        return vectors.levelled(supports, settings.scale, settings.least)

    def _whole(self, support: base.Support) -> Tensor:
        """(N, c) the whole image as each of the classes that it shows, zero for the others."""
        return _class_embeddings.shows(support)[:, None] * _class_embeddings.whole(support, self.settings.token)

    def _score(self, features: FeatureMap) -> Tensor:
        logits: Tensor = self.fitted.logits(features.tokens, self.settings.scale, self.settings.least)
        return logits.reshape(-1, *features.grid_hw)
