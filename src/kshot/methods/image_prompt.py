"""A whole support image as the prompt, without a mask: the baseline of few-shot segmentation with CLIP-like models.

The prototype of a class is the embedding of the whole image, where `text` has that of words (the image prompts of
CLIPSeg, Lüddecke and Ecker, CVPR 2022, section 3.2, applied to CLIP-DINOiser). `prompt` narrows the image down to its
salient region or to the mask. The background is what lies outside of the salient region, or outside of the mask.
"""

from dataclasses import dataclass

from torch import Tensor

from kshot.errors import SettingError
from kshot.methods import base, text
from kshot.methods._class_embeddings import (
    ClassPrototypes,
    fit_prototypes,
    image_embedding,
    shown_classes,
    with_salient_masks,
)

_PROMPTS = ("whole", "object", "mask")


@dataclass(frozen=True)
class Settings(text.Settings):
    """Those of `text`, and what of an image is the prompt. Raises `SettingError` for a value out of range."""

    prompt: str = "whole"
    """"whole" for the image, "object" for its salient region, "mask" for the marked region (salient if unmarked)."""
    token: bool = True
    """Whether a whole image is the backbone's image token, where it has one, instead of the mean patch token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt not in _PROMPTS:
            raise SettingError(f"prompt {self.prompt!r} of image-prompt: use {', '.join(_PROMPTS)}")


class Task(text.Task):
    """Logits of `text`, with prototypes of whole images."""

    method = "image-prompt"
    Settings = Settings

    def _fitted(self) -> ClassPrototypes:
        settings, supports = self.settings, self.supports
        if settings.prompt != "mask":
            supports = tuple(with_salient_masks(support) for support in supports)
        if settings.prompt != "whole":
            return fit_prototypes(supports, settings.text_share)
        # An image embedding lies between object and background, an image token elsewhere: zero is no threshold there.
        prototypes = fit_prototypes(supports, settings.text_share, self._image_prototypes)
        return prototypes.with_midpoint_threshold(supports, settings.scale, settings.default_background_similarity)

    def _image_prototypes(self, support: base.Support) -> Tensor:
        """(N, c) the image embedding for each class that a support shows, zero for the others."""
        return shown_classes(support)[:, None] * image_embedding(support, self.settings.token)
