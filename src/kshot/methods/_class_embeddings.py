"""Class vectors of images and words, and the background that each of them has to beat.

Images and words do not meet in the middle: in CLIP's joint space the cosine of a cell with a text is some 0.2, with
another image some 0.8 (the modality gap, Liang et al., NeurIPS 2022). So a class's background is always mixed as the
class is, with the same share of words: like is compared with like, and zero stays the threshold whatever the mixture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.errors import SettingError
from kshot.methods.base import Support
from kshot.ops.geometry import coverage
from kshot.ops.pooling import masked_average, stack_tokens
from kshot.ops.prompt_masks import salient

_SAME = 0.999  # cosine above which a background word is the class's own word
# An image as each of its classes: (N, c) of unit length, zero for those that it does not show.
Pictured = Callable[[Support], Tensor]


@dataclass(frozen=True, eq=False)
class Vectors:
    """What fitting makes of the supports.

    classes: (N, c) of unit length, zero for a class that no support shows. backgrounds: of each class (m, c), what it
    is compared with; none where no support shows any background. levels: (N,) log odds that count as zero.
    """

    classes: Tensor
    backgrounds: tuple[Tensor, ...]
    levels: Tensor

    def logits(self, tokens: Tensor, scale: float, least: float) -> Tensor:
        """(N + 1, n) log odds of the softmax of scale x cosine, a class against its background, of tokens (n, c).

        least: the cosine that counts as background where there is none to compare with. Row 0 is zero.
        """
        rows = [torch.zeros(len(tokens))]
        for vector, background, level in zip(self.classes, self.backgrounds, self.levels, strict=True):
            against = scale * tokens @ background.T if len(background) else torch.full((len(tokens), 1), scale * least)
            rows.append(scale * tokens @ vector - against.logsumexp(1) - level)
        return torch.stack(rows)

    def levelled(self, supports: Sequence[Support], scale: float, least: float) -> "Vectors":
        """The same with zero half-way between what the support images' classes and their backgrounds score."""
        images = [support for support in supports if support.kind != "text"]
        if not images:
            return self
        scores = torch.cat([self.logits(support.features.tokens, scale, least)[1:] for support in images], 1)  # (N, n)
        inside = stack_tokens([support.masks for support in images])  # (N, n)
        outside = stack_tokens([support.background for support in images]).expand_as(inside)
        usable = (inside.sum(1) > 0) & (outside.sum(1) > 0)
        middle = (_weighted(scores, inside) + _weighted(scores, outside)) / 2
        return replace(self, levels=torch.where(usable, middle, self.levels))


def as_salient(support: Support) -> Support:
    """An image with its salient region as the mask of every class that it shows, whatever was marked; words stay."""
    if support.kind != "mask":  # the masks of a whole image are its salient region already
        return support
    known, shown = coverage(support.features.frame), shows(support)
    if not bool(shown.any()):  # all background, salient or not
        return replace(support, known=known)
    return replace(support, masks=shown[:, None, None] * salient(support.features), known=known)


def shows(support: Support) -> Tensor:
    """(N,) 1 for the classes of which a support shows anything, else 0."""
    return (support.masks.flatten(1).amax(1) > 0).float()


def pooled(support: Support) -> Tensor:
    """(N, c) mean cells under the masks, of unit length."""
    return masked_average(support.features.tokens, support.masks.flatten(1))


def whole(support: Support, use_token: bool) -> Tensor:
    """(c,) the whole image as one vector: the backbone's own token where it has one, or the mean of the cells."""
    token = support.features.token
    if use_token and token is not None:
        return token
    return masked_average(support.features.tokens, coverage(support.features.frame).flatten())


def fit_vectors(supports: Sequence[Support], text_share: float, pictured: Pictured = pooled) -> Vectors:
    """Class vectors from images and words.

    text_share: share of the words in a class that has both kinds, of shots of equal weight. pictured: how an image
    gives class vectors, by default as the means of its cells.
    """
    images = [support for support in supports if support.kind != "text"]
    texts = [support for support in supports if support.kind == "text"]
    ways, channels = supports[0].masks.shape[0], supports[0].features.features.shape[0]
    seen, seen_weight = _mean([pictured(support) for support in images], images, (ways, channels))
    read, read_weight = _mean([pooled(support) for support in texts], texts, (ways, channels))
    ground, words = _ground(images, channels), _words(texts, channels)
    classes, backgrounds = [], []
    for way in range(ways):
        share = _share(text_share, float(read_weight[way]), float(seen_weight[way]))
        classes.append(F.normalize(share * read[way] + (1 - share) * seen[way], dim=0))
        backgrounds.append(_background(share, words[words @ read[way] < _SAME], ground))
    return Vectors(torch.stack(classes), tuple(backgrounds), torch.zeros(ways))


def check_share(text_share: float) -> None:
    """Raise `SettingError` unless it is in 0..1."""
    if not 0 <= text_share <= 1:
        raise SettingError(f"text_share {text_share}: expected a share in 0..1")


def _mean(vectors: list[Tensor], supports: Sequence[Support], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weighted means (N, c) of unit length, and the mean weight (N,) of the supports that show each class."""
    if not vectors:
        return torch.zeros(shape), torch.zeros(shape[0])
    stack = torch.stack(vectors)  # (k, N, c)
    weights = torch.tensor([support.weight for support in supports])[:, None] * (stack.norm(dim=2) > 0)  # (k, N)
    mean = weights.sum(0) / (weights > 0).sum(0).clamp(min=1)
    return F.normalize(torch.einsum("kn,knc->nc", weights, stack), dim=1), mean


def _share(text_share: float, words: float, images: float) -> float:
    """The share of words when their shots weigh `words` on average, and the images' `images`; 0 is none of a kind."""
    if not words or not images:
        return 1.0 if words else 0.0
    words, images = text_share * words, (1 - text_share) * images
    return words / (words + images)


def _ground(images: Sequence[Support], channels: int) -> Tensor:
    """(0 or 1, c): the mean background of all support images together."""
    if not images:
        return torch.zeros(0, channels)
    tokens = torch.cat([support.features.tokens for support in images])
    background = stack_tokens([support.background for support in images])
    return masked_average(tokens, background)[None] if float(background.sum()) > 0 else tokens[:0]


def _words(texts: Sequence[Support], channels: int) -> Tensor:
    """(m, c): the different background words, in an order that does not depend on that of the supports."""
    rows = [support.features.tokens[(support.background > 0.5).flatten()] for support in texts]
    return torch.unique(torch.cat(rows), dim=0) if rows else torch.zeros(0, channels)


def _background(share: float, words: Tensor, ground: Tensor) -> Tensor:
    """(m, c) background words and image background, mixed as a class with this share of words is."""
    if share == 0 or not len(words):
        return ground if share < 1 else words
    if share == 1 or not len(ground):
        return words
    return F.normalize(share * words + (1 - share) * ground, dim=1)


def _weighted(scores: Tensor, weights: Tensor) -> Tensor:
    return (scores * weights).sum(1) / weights.sum(1).clamp(min=1e-6)
