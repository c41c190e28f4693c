"""Supports changed around their class: mirrored, cut larger or smaller, recoloured, with a second object pasted in.

Features of a changed picture must be computed anew, so each (image, class) has a few variants and no more: every
variant is pure in (seed, image, class, number), is made once, and its features go to the same cache as all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kshot.data.base import Dataset
from kshot.errors import SettingError
from kshot.features import FeatureCache
from kshot.features.lru import BoundedCache
from kshot.io.images import read_image
from kshot.ops.geometry import FeatureMap
from kshot.segmenter import Segmenter
from kshot.training.unlabelled import recolour, rng

KINDS = ("flip", "scale", "colour", "copy-paste")
_VARIANT = 12  # what chance is asked for
_PLAIN = 0.25  # of the supports stay as they are: that is what inference will see
_HELD_BYTES = 400 * 2**20
_SCALES = (0.5, 1.0)  # side of a cut, in sides of the picture
Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Augmented:
    """features: of the changed picture. labels: (h, w) class ids, 255 ignored."""

    features: FeatureMap
    labels: Picture


class Augmenter:
    """kinds: of `KINDS`. variants: of each (image, class). Raises `SettingError`."""

    def __init__(
        self, segmenter: Segmenter, view: Dataset, cache: FeatureCache, kinds: Sequence[str], variants: int, seed: int
    ):
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or variants < 1:
            raise SettingError(
                f"--augment {','.join(unknown) or kinds}: choices: {', '.join(KINDS)}; --variants from 1 on"
            )
        self.segmenter, self.view, self.cache = segmenter, view, cache
        self.kinds, self.variants, self.seed = tuple(kinds), variants, seed
        self._held = BoundedCache[Augmented](
            _HELD_BYTES, lambda made: made.labels.nbytes + made.features.features.nbytes
        )
        self._shows = {c: [pair.image for pair in view.pairs() if pair.class_id == c] for c in view.fold_classes()}

    def variant(self, image: str, class_id: int, number: int) -> Augmented | None:
        """One of the variants, chosen by the number of the example; None where the support stays as it is."""
        chance = rng(self.seed, _VARIANT, number, class_id, _number(image))
        if chance.random() < _PLAIN:
            return None
        which = int(chance.integers(self.variants))
        return self._held.get((image, class_id, which), lambda: self._make(image, class_id, which))

    def _make(self, image: str, class_id: int, which: int) -> Augmented:
        chance = rng(self.seed, _VARIANT, _number(image), class_id, which)
        picture, labels = self._read(image)
        if "copy-paste" in self.kinds:
            picture, labels = self._pasted(picture, labels, image, class_id, chance)
        if "scale" in self.kinds:
            picture, labels = cut_around(picture, labels, class_id, chance)
        seen = Image.fromarray(picture)
        if "colour" in self.kinds:
            seen = recolour(seen, chance)
        if "flip" in self.kinds and chance.random() < 0.5:
            seen, labels = ImageOps.mirror(seen), np.ascontiguousarray(labels[:, ::-1])
        changed, segmenter = np.asarray(seen), self.segmenter
        features = self.cache.get(
            changed.tobytes() + repr(changed.shape).encode(),
            segmenter.backbone,
            segmenter.size,
            segmenter.backbone.spec.patch,
            lambda: segmenter.features(changed),
        )
        return Augmented(features, labels)

    def _read(self, image: str) -> tuple[Picture, Picture]:
        picture = read_image(self.view.image_path(image), max_pixels=self.segmenter.max_pixels)
        return picture, self.view.truth(image).astype(np.uint8)

    def _pasted(
        self, picture: Picture, labels: Picture, image: str, class_id: int, chance: np.random.Generator
    ) -> tuple[Picture, Picture]:
        """An object of the class from another image of it, somewhere in this one."""
        others = [other for other in self._shows[class_id] if other != image]
        if not others:
            return picture, labels
        return paste(picture, labels, *self._read(others[int(chance.integers(len(others)))]), class_id, chance)


def cut_around(
    picture: Picture, labels: Picture, class_id: int, chance: np.random.Generator
) -> tuple[Picture, Picture]:
    """A part of the picture that keeps its aspect ratio and holds the middle of a random pixel of the class."""
    height, width = labels.shape
    share = chance.uniform(*_SCALES)
    high, wide = max(1, round(height * share)), max(1, round(width * share))
    rows, columns = np.nonzero(labels == class_id)
    at = int(chance.integers(len(rows)))
    top = int(np.clip(rows[at] - high // 2, 0, height - high))
    left = int(np.clip(columns[at] - wide // 2, 0, width - wide))
    part = slice(top, top + high), slice(left, left + wide)
    return np.ascontiguousarray(picture[part]), np.ascontiguousarray(labels[part])


def paste(
    picture: Picture, labels: Picture, other: Picture, marks: Picture, class_id: int, chance: np.random.Generator
) -> tuple[Picture, Picture]:
    """The class of another picture, cut out by its mask and resized, at a random place of this one."""
    rows, columns = np.nonzero(marks == class_id)
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    height, width = labels.shape
    share = chance.uniform(0.25, 0.5) * min(width / (box[2] - box[0]), height / (box[3] - box[1]))
    wide, high = max(1, round((box[2] - box[0]) * share)), max(1, round((box[3] - box[1]) * share))
    object_ = Image.fromarray(other).crop(box).resize((wide, high), Image.Resampling.BICUBIC)
    mask = Image.fromarray(np.uint8(marks == class_id)).crop(box).resize((wide, high), Image.Resampling.NEAREST)
    top, left = int(chance.integers(height - high + 1)), int(chance.integers(width - wide + 1))
    picture, labels, there = picture.copy(), labels.copy(), np.asarray(mask) > 0
    part = slice(top, top + high), slice(left, left + wide)
    picture[part][there] = np.asarray(object_)[there]
    labels[part][there] = class_id
    return picture, labels


def _number(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big")
