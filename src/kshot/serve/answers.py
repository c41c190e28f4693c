"""What is shown as the mask of an image: for each pixel its best class, and how certain that is."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kshot.annotations import rle
from kshot.errors import MaskError
from kshot.ops.components import connected_components
from kshot.types import check_same_size

CERTAIN = 255
_GREYS = bytes(level for level in range(256) for _ in range(3))
EVEN = 128
"""Certainty from which a pixel shows its class when nobody moves the threshold."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The mask of an image at every threshold, at the image's own size or that of a smaller copy."""

    labels: NDArray[np.uint8]
    """(h, w): 1..N, the likeliest class; 0 where none comes into question."""
    certainty: NDArray[np.uint8]
    """(h, w): 255 times the probability of that class against the background."""

    @classmethod
    def nothing(cls, size_hw: tuple[int, int]) -> "Answer":
        """The answer that marks no pixel."""
        return cls(np.zeros(size_hw, np.uint8), np.zeros(size_hw, np.uint8))

    @classmethod
    def of_mask(cls, mask: NDArray[np.uint8]) -> "Answer":
        """The answer of a mask (h, w) that somebody decided on."""
        return cls(mask, np.where(mask > 0, CERTAIN, 0).astype(np.uint8))

    @classmethod
    def of_scores(cls, scores: NDArray[np.float32], kept: Sequence[int]) -> "Answer":
        """The answer of scores (N+1, h, w) that sum to 1, 0 = background; kept: labels of classes that are present."""
        if not len(kept):
            return cls.nothing((scores.shape[1], scores.shape[2]))
        best = scores[list(kept)].argmax(0)
        top = np.take_along_axis(scores[list(kept)], best[None], 0)[0]
        certainty = np.rint(255 * top / np.maximum(top + scores[0], 1e-9)).astype(np.uint8)
        labels = np.asarray(kept, np.uint8)[best]
        return cls(np.where(certainty > 0, labels, 0).astype(np.uint8), certainty)

    @classmethod
    def of_png(cls, data: bytes) -> "Answer":
        """The answer that `png` wrote."""
        with Image.open(io.BytesIO(data)) as image:
            labels, certainty = np.split(np.array(image), 2)
        return cls(labels, certainty)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.labels.shape[0], self.labels.shape[1]

    @cached_property
    def png(self) -> bytes:
        """A PNG twice as high as the mask: the labels, and below them the certainties, in steps of four.

        With a palette, since Pillow filters nothing then, which makes it four times as fast.
        """
        steps = np.where(self.certainty == CERTAIN, CERTAIN, self.certainty & 0xFC)
        image = Image.fromarray(np.concatenate([self.labels, steps.astype(np.uint8)]))
        image.putpalette(_GREYS)
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        return file.getvalue()

    def mask(self, least: int = EVEN) -> NDArray[np.uint8]:
        """(h, w) labels where the certainty is at least `least`, 1..255."""
        return np.where(self.certainty >= max(1, least), self.labels, 0).astype(np.uint8)

    def without_specks(self, least: float) -> "Answer":
        """The answer whose components of fewer pixels, at even odds, fall just short of them."""
        mask, certainty = self.mask(), self.certainty.copy()
        for value in (int(value) for value in np.unique(mask) if value):
            for place, inside in connected_components(mask == value):
                if inside.sum() < least:
                    certainty[place][inside] = EVEN - 1
        return Answer(self.labels, certainty)

    def resized(self, size_hw: tuple[int, int]) -> "Answer":
        """The answer at another size; certainties are interpolated class by class."""
        if size_hw == self.size_hw:
            return self
        size, values = (size_hw[1], size_hw[0]), [int(value) for value in np.unique(self.labels) if value]
        labels, certainty = np.zeros(size_hw, np.uint8), np.zeros(size_hw, np.uint8)
        for value in values:
            plane = Image.fromarray(np.where(self.labels == value, self.certainty, 0).astype(np.uint8))
            smooth = np.asarray(plane.resize(size, Image.Resampling.BILINEAR))
            better = smooth > certainty
            labels[better], certainty[better] = value, smooth[better]
        return Answer(labels, certainty)


def rle_of(mask: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{class: COCO's compressed run lengths} of the classes in a mask."""
    found = {}
    for label, name in enumerate(classes, 1):
        if (mask == label).any():
            encoded = rle.encode(mask == label)
            found[name] = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
    return found


def mask_of_png(data: bytes, size_hw: tuple[int, int], classes: int, name: str) -> NDArray[np.uint8]:
    """(h, w) labels of an index PNG.

    Raises `MaskError` for what is no PNG, for another size than the image's, and for a label of no class.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            check_same_size((image.height, image.width), size_hw, f"the mask of {name}")
            if image.mode not in {"P", "L"}:
                raise MaskError(f"the mask of {name}: colours, where labels were expected; save an index PNG")
            mask = np.array(image)
    except MaskError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise MaskError(f"the mask of {name}: not a PNG ({error})") from error
    if int(mask.max(initial=0)) > classes:
        raise MaskError(f"the mask of {name}: label {int(mask.max())}, but {classes} classes are named")
    return mask
