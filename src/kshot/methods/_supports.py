"""Supports: encoded examples, and of many of them a bounded number and a bank of the others' patch tokens."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from kshot.errors import ShapeError
from kshot.ops.coresets import coreset
from kshot.ops.geometry import FeatureMap, Frame
from kshot.ops.object_shapes import ObjectShape
from kshot.ops.pixel_features import PixelSamples
from kshot.ops.pooling import stack_tokens, token_sums

KINDS = ("mask", "image", "text", "bank")
MANY = 32
"""Supports of a class beyond which the others' tokens are kept as a coreset: neither memory nor scoring grows then."""
CORESET_TOKENS = 1024
"""Of the background, and of each class."""


@dataclass(frozen=True, eq=False)
class Support:
    """One encoded support: an image with soft masks, or words. Raises `ShapeError` where shapes do not agree."""

    features: FeatureMap
    """The image's patch tokens; for words, each patch token is the embedding of one text."""
    masks: Tensor
    """(N, gh, gw) in 0..1, the fraction of each patch that shows each class."""
    valid_mask: Tensor
    """(gh, gw) in 0..1, the fraction of each patch that is labelled; ignored pixels and padding are not."""
    kind: str = "mask"
    """"mask" for an image that somebody marked, "image" for a whole image, whose masks are its salient region, "text"
    for words; words that stand for no class are background words. "bank" for the patch tokens of many images, in no
    order: its masks and valid_mask say how many patches each token stands for, so they may be above 1."""
    weight: float = 1.0
    """Above 0: how much the support counts in a class's embedding."""
    objects: Mapping[str, ObjectShape] = field(default_factory=dict)
    """{class: what its objects in this image are like}; for instances("learned") of predictions, not for methods."""
    pixels: PixelSamples | None = None
    """Single pixels; None where nobody drew a mask."""
    crops: tuple["Support", ...] = ()
    """The same support seen closer: parts of the image around what it shows, for methods that crop supports."""
    number: int = 0
    """Its place among all that were given, from 1 on, where some of them are in a bank; else 0."""
    count: int = 1
    """Supports that it stands for; of a bank more."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ShapeError(f"expected a support of kind {', '.join(KINDS)}, got {self.kind!r}")
        grid_hw = self.features.grid_hw
        if self.masks.ndim != 3 or tuple(self.masks.shape[1:]) != grid_hw:
            raise ShapeError(f"expected masks (N, *{grid_hw}), got {tuple(self.masks.shape)}")
        if tuple(self.valid_mask.shape) != grid_hw:
            raise ShapeError(f"expected valid_mask {grid_hw}, got {tuple(self.valid_mask.shape)}")

    @property
    def background(self) -> Tensor:
        """(gh, gw) in 0..1: the fraction of each patch that is labelled and shows none of the classes."""
        return (self.valid_mask - self.masks.sum(0)).clamp(min=0)

    @property
    def views(self) -> tuple["Support", ...]:
        """Its crops, or the whole image where it has none."""
        return self.crops or (self,)

    @cached_property
    def rank(self) -> str:
        """A hash of its features: those of the lowest ranks are an even draw from all supports, in whatever order."""
        return hashlib.sha256(self.features.features.cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()

    @cached_property
    def token_sums(self) -> Tensor:
        """(n,) of its patch tokens, see `token_sums`; kept, so that a support which joins a thousand others re-reads
        none of them."""
        return token_sums(self.features.tokens)

    def with_ways(self, ways: int) -> "Support":
        """The same support with empty masks for classes that were added later."""
        if ways == self.masks.shape[0]:
            return self
        extra = self.masks.new_zeros(ways - self.masks.shape[0], *self.masks.shape[1:])
        crops = tuple(crop.with_ways(ways) for crop in self.crops)
        return replace(self, masks=torch.cat([self.masks, extra]), crops=crops)

    def of_ways(self, ways: Sequence[int]) -> "Support":
        """The same support with the masks of some of its classes alone."""
        return replace(self, masks=self.masks[list(ways)], crops=tuple(crop.of_ways(ways) for crop in self.crops))


def bounded(supports: Iterable[Support], most: int = MANY) -> tuple[Support, ...]:
    """At most `most` of the supports of each class, and of those that show no class, and a bank of all others.

    Which ones stay depends neither on the order in which they come, nor on what was bounded before: the supports of an
    earlier call may come first, with their bank. Words stay. Those that stay keep their order; the bank is the last.
    No more than `most` others are held at any time.
    """
    kept, banks, given, limit = list[tuple[int, Support]](), list[Support](), 0, 0
    for support in supports:
        given += support.count
        if support.kind == "bank":
            banks.append(support)
        else:
            kept.append((support.number or given, support))
        if len(kept) > limit:
            kept, banks = _reduced(kept, banks, most)
            limit = len(kept) + most
    kept, banks = _reduced(kept, banks, most)
    return (*(replace(support, number=place) if banks else support for place, support in kept), *banks)


def _reduced(
    numbered: Sequence[tuple[int, Support]], banks: Sequence[Support], most: int
) -> tuple[list[tuple[int, Support]], list[Support]]:
    """Supports that stay, with their numbers, and one bank of the others and of earlier banks, if any."""
    supports = [support for _, support in numbered]
    stay = {index for index, support in enumerate(supports) if support.kind == "text"}
    shows = [(support.masks.flatten(1).amax(1) > 0).tolist() for support in supports]
    for way in range(len(shows[0]) if shows else 0):
        stay |= _lowest(supports, [index for index, shown in enumerate(shows) if shown[way]], most)
    stay |= _lowest(supports, [index for index, shown in enumerate(shows) if not any(shown)], most)
    going = [*banks, *(support for index, support in enumerate(supports) if index not in stay)]
    bank = [_bank(going)] if len(going) > len(banks) else list(banks)
    return [each for index, each in enumerate(numbered) if index in stay], bank


def _lowest(supports: Sequence[Support], chosen: Sequence[int], most: int) -> set[int]:
    return set(chosen if len(chosen) <= most else sorted(chosen, key=lambda index: supports[index].rank)[:most])


def _bank(supports: Sequence[Support]) -> Support:
    """The patch tokens of supports, of banks among them too, as a bounded number of weighted ones."""
    views = [view for support in supports for view in support.views]
    tokens, labels = coreset_of(views)
    patch, identity = views[0].features.frame.patch, views[0].features.identity
    size_hw = patch, patch * len(tokens)
    features = FeatureMap(tokens.T[:, None].contiguous(), Frame(size_hw, size_hw, patch), identity)
    names = dict.fromkeys(name for support in supports for name in support.objects)
    objects = {name: ObjectShape.pooled(s.objects[name] for s in supports if name in s.objects) for name in names}
    return Support(
        features,
        labels.T[1:, None].contiguous(),
        labels.sum(1)[None],
        "bank",
        objects={name: shape for name, shape in objects.items() if shape},
        count=sum(support.count for support in supports),
    )


def coreset_of(supports: Sequence[Support]) -> tuple[Tensor, Tensor]:
    """The patch tokens (n, c) of all supports as at most `CORESET_TOKENS` of the background and of each class, and
    their labels (n, N+1), which sum to what they summed to."""
    sums = torch.cat([support.token_sums for support in supports])
    return coreset(sums, stacked_labels(supports), partial(_tokens_at, supports), CORESET_TOKENS)


def stacked_labels(supports: Sequence[Support]) -> Tensor:
    """(n, N+1) of all patch tokens, one support behind the other: how much each shows what, the background first."""
    classes = stack_tokens([support.masks for support in supports])  # (N, n)
    background = stack_tokens([support.background for support in supports])  # (n,)
    return torch.cat([background[None], classes]).T


def _tokens_at(supports: Sequence[Support], places: Tensor) -> Tensor:
    """(k, c) tokens at indices into the tokens of all supports, one behind the other."""
    ends = torch.tensor([support.features.tokens.shape[0] for support in supports]).cumsum(0)
    owners = torch.searchsorted(ends, places, right=True)
    found = supports[0].features.tokens.new_empty(len(places), supports[0].features.tokens.shape[1])
    for index in owners.unique().tolist():
        own = owners == index
        tokens = supports[index].features.tokens
        found[own] = tokens[places[own] - (int(ends[index]) - len(tokens))]
    return found
