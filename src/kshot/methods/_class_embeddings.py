"""Class prototypes from images and words, each with the background that it is compared with.

Embeddings of images and of words lie apart: in CLIP's joint space the cosine of a patch token with a text is about 0.2,
with another image about 0.8 (the modality gap, Liang et al., NeurIPS 2022). So the background of a class is mixed from
images and words in the same proportion as the class, and zero stays the threshold for every mixture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods.base import Support
from kshot.ops.geometry import coverage
from kshot.ops.pooling import masked_average, stack_tokens
from kshot.ops.prompt_masks import salient

_SAME_WORD = 0.999  # cosine above which a background word is the class's own word


@dataclass(frozen=True, eq=False)
class ClassPrototypes:
    """What fitting computes from the supports."""

    classes: Tensor
    """(N, c) of unit length, zero for a class that no support shows."""
    backgrounds: tuple[Tensor, ...]
    """For each class the background (m, c) it is compared with; m is 0 where no support shows any."""
    thresholds: Tensor
    """(N,) log odds that count as zero."""

    def logits(self, tokens: Tensor, scale: float, default_background_similarity: float) -> Tensor:
        """(N + 1, n) log odds of each class of tokens (n, c) in a softmax of scale x cosine; row 0 is zero.

        default_background_similarity: the cosine that counts as background where there is none to compare with.
        """
        rows, default = [torch.zeros(len(tokens))], scale * default_background_similarity
        for prototype, background, threshold in zip(self.classes, self.backgrounds, self.thresholds, strict=True):
            against = scale * tokens @ background.T if len(background) else torch.full((len(tokens), 1), default)
            rows.append(scale * tokens @ prototype - against.logsumexp(1) - threshold)
        return torch.stack(rows)

    def with_midpoint_threshold(
        self, supports: Sequence[Support], scale: float, default_background_similarity: float
    ) -> "ClassPrototypes":
        """The same with thresholds midway between the mean scores of class and background in the support images."""
        images = [support for support in supports if support.kind != "text"]
        if not images:
            return self
        scores = torch.cat(
            [self.logits(support.features.tokens, scale, default_background_similarity)[1:] for support in images], 1
        )  # (N, n)
        inside = stack_tokens([support.masks for support in images])  # (N, n)
        outside = stack_tokens([support.background for support in images]).expand_as(inside)
        usable = (inside.sum(1) > 0) & (outside.sum(1) > 0)
        midpoint = (_weighted_mean(scores, inside) + _weighted_mean(scores, outside)) / 2
        return replace(self, thresholds=torch.where(usable, midpoint, self.thresholds))


def fit_prototypes(
    supports: Sequence[Support], text_share: float, embed_image: "Callable[[Support], Tensor] | None" = None
) -> ClassPrototypes:
    """Class prototypes and their backgrounds from images and words.

    text_share: share of the words in a class that has both kinds, of supports of equal weight. embed_image: gives the
    embeddings (N, c) of an image, zero for classes that it does not show; by default the mean tokens under its masks.
    """
    images = [support for support in supports if support.kind != "text"]
    texts = [support for support in supports if support.kind == "text"]
    ways, channels = supports[0].masks.shape[0], supports[0].features.features.shape[0]
    of_images, image_weight = _mean(
        [(embed_image or mean_tokens)(support) for support in images], images, (ways, channels)
    )
    of_texts, text_weight = _mean([mean_tokens(support) for support in texts], texts, (ways, channels))
    image_background, words = _image_background(images, channels), _background_words(texts, channels)
    classes, backgrounds = [], []
    for way in range(ways):
        share = _share(text_share, float(text_weight[way]), float(image_weight[way]))
        classes.append(F.normalize(share * of_texts[way] + (1 - share) * of_images[way], dim=0))
        backgrounds.append(_mixed(share, words[words @ of_texts[way] < _SAME_WORD], image_background))
    return ClassPrototypes(torch.stack(classes), tuple(backgrounds), torch.zeros(ways))


def with_salient_masks(support: Support) -> Support:
    """A support whose mask, for every class that it shows, is the salient region of its image; words stay."""
    if support.kind != "mask":  # the masks of a whole image are its salient region already
        return support
    valid_mask, shown = coverage(support.features.frame), shown_classes(support)
    if not bool(shown.any()):  # all of it is background
        return replace(support, valid_mask=valid_mask)
    return replace(support, masks=shown[:, None, None] * salient(support.features), valid_mask=valid_mask)


def shown_classes(support: Support) -> Tensor:
    """(N,) 1 for the classes of which a support shows anything, else 0."""
    return (support.masks.flatten(1).amax(1) > 0).float()


def mean_tokens(support: Support) -> Tensor:
    """(N, c) mean patch tokens under the masks, of unit length."""
    return masked_average(support.features.tokens, support.masks.flatten(1))


def image_embedding(support: Support, use_token: bool) -> Tensor:
    """(c,) embedding of the whole image: the backbone's image token where it has one, or the mean patch token."""
    token = support.features.token
    if use_token and token is not None:
        return token
    return masked_average(support.features.tokens, coverage(support.features.frame).flatten())


def _mean(embeddings: list[Tensor], supports: Sequence[Support], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weighted means (N, c) of unit length, and the mean weight (N,) of the supports that show each class."""
    if not embeddings:
        return torch.zeros(shape), torch.zeros(shape[0])
    stack = torch.stack(embeddings)  # (k, N, c)
    weights = torch.tensor([support.weight for support in supports])[:, None] * (stack.norm(dim=2) > 0)  # (k, N)
    mean = weights.sum(0) / (weights > 0).sum(0).clamp(min=1)
    return F.normalize(torch.einsum("kn,knc->nc", weights, stack), dim=1), mean


def _share(text_share: float, words: float, images: float) -> float:
    """Share of the words in a class, from the mean weight of its words and of its images; 0 where there are none."""
    if not words or not images:
        return 1.0 if words else 0.0
    words, images = text_share * words, (1 - text_share) * images
    return words / (words + images)


def _image_background(images: Sequence[Support], channels: int) -> Tensor:
    """(0 or 1, c): the mean background of all support images together."""
    if not images:
        return torch.zeros(0, channels)
    tokens = torch.cat([support.features.tokens for support in images])
    background = stack_tokens([support.background for support in images])
    return masked_average(tokens, background)[None] if float(background.sum()) > 0 else tokens[:0]


def _background_words(texts: Sequence[Support], channels: int) -> Tensor:
    """(m, c): the background words, each once, in an order that does not depend on that of the supports."""
    rows = [support.features.tokens[(support.background > 0.5).flatten()] for support in texts]
    return torch.unique(torch.cat(rows), dim=0) if rows else torch.zeros(0, channels)


def _mixed(share: float, words: Tensor, background: Tensor) -> Tensor:
    """(m, c): background words and the images' background (0 or 1, c), with the class's share of words."""
    if share == 0 or not len(words):
        return background if share < 1 else words
    if share == 1 or not len(background):
        return words
    return F.normalize(share * words + (1 - share) * background, dim=1)


def _weighted_mean(scores: Tensor, weights: Tensor) -> Tensor:
    return (scores * weights).sum(1) / weights.sum(1).clamp(min=1e-6)
