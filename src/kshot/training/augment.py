"""Augmented supports: mirrored, cropped around their class, recolored, or with a second object pasted in.

The features of a changed image must be computed anew, so each (image, class) has only a few variants. A variant depends
on (seed, image, class, number) alone and is made once; its features go to the same cache as all others.
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
from kshot.training.episodic_recipes import AUGMENTATIONS
from kshot.training.unlabelled import RGB, color_jitter, seeded_rng

Labels = NDArray[np.uint8]  # (h, w) class ids, 255 ignored
_VARIANT = 12  # a random stream of its own
_UNCHANGED = 0.25  # fraction of the supports that stay as they are, which is how inference sees them
_CACHE_BYTES = 400 * 2**20
_SCALES = (0.5, 1.0)  # sides of a crop, as a fraction of the image's


@dataclass(frozen=True, eq=False)
class Augmented:
    """The features of a changed image, and its labels (h, w)."""

    features: FeatureMap
    labels: Labels


class Augmenter:
    """Makes variants of supports. kinds: some of `AUGMENTATIONS`. variants: of each (image, class).

    Raises `SettingError`.
    """

    def __init__(
        self, segmenter: Segmenter, view: Dataset, cache: FeatureCache, kinds: Sequence[str], variants: int, seed: int
    ):
        unknown = sorted(set(kinds) - set(AUGMENTATIONS))
        if unknown or variants < 1:
            raise SettingError(
                f"augment {','.join(unknown) or kinds}: choices: {', '.join(AUGMENTATIONS)}; variants from 1 on"
            )
        self.segmenter, self.view, self.cache = segmenter, view, cache
        self.kinds, self.variants, self.seed = tuple(kinds), variants, seed
        self._made = BoundedCache[Augmented](
            _CACHE_BYTES, lambda made: made.labels.nbytes + made.features.features.nbytes
        )
        self._images = {c: [pair.image for pair in view.pairs() if pair.class_id == c] for c in view.fold_classes()}

    def variant(self, image: str, class_id: int, number: int) -> Augmented | None:
        """A random variant for example `number`, or None where the support stays as it is."""
        rng = seeded_rng(self.seed, _VARIANT, number, class_id, _number(image))
        if rng.random() < _UNCHANGED:
            return None
        which = int(rng.integers(self.variants))
        return self._made.get((image, class_id, which), lambda: self._make(image, class_id, which))

    def _make(self, image: str, class_id: int, which: int) -> Augmented:
        rng = seeded_rng(self.seed, _VARIANT, _number(image), class_id, which)
        pixels, labels = self._read(image)
        if "copy-paste" in self.kinds:
            others = [other for other in self._images[class_id] if other != image]
            if others:
                pixels, labels = copy_paste(
                    pixels, labels, *self._read(others[int(rng.integers(len(others)))]), class_id, rng
                )
        if "scale" in self.kinds:
            pixels, labels = crop_around(pixels, labels, class_id, rng)
        view = Image.fromarray(pixels)
        if "color-jitter" in self.kinds:
            view = color_jitter(view, rng)
        if "flip" in self.kinds and rng.random() < 0.5:
            view, labels = ImageOps.mirror(view), np.ascontiguousarray(labels[:, ::-1])
        changed, segmenter = np.asarray(view), self.segmenter
        features = self.cache.get(
            changed.tobytes() + repr(changed.shape).encode(),
            segmenter.backbone,
            segmenter.size,
            lambda: segmenter.features(changed),
        )
        return Augmented(features, labels)

    def _read(self, image: str) -> tuple[RGB, Labels]:
        pixels = read_image(self.view.image_path(image), max_pixels=self.segmenter.max_pixels)
        return pixels, self.view.truth(image).astype(np.uint8)


def crop_around(image: RGB, labels: Labels, class_id: int, rng: np.random.Generator) -> tuple[RGB, Labels]:
    """A random crop of the same aspect ratio, centred on a random pixel of the class as far as the border allows."""
    height, width = labels.shape
    scale = rng.uniform(*_SCALES)
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    rows, columns = np.nonzero(labels == class_id)
    at = int(rng.integers(len(rows)))
    top = int(np.clip(rows[at] - high // 2, 0, height - high))
    left = int(np.clip(columns[at] - wide // 2, 0, width - wide))
    crop = slice(top, top + high), slice(left, left + wide)
    return np.ascontiguousarray(image[crop]), np.ascontiguousarray(labels[crop])


def copy_paste(
    image: RGB, labels: Labels, other: RGB, other_labels: Labels, class_id: int, rng: np.random.Generator
) -> tuple[RGB, Labels]:
    """The image with the class's pixels of another image, resized, at a random place."""
    rows, columns = np.nonzero(other_labels == class_id)
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    height, width = labels.shape
    scale = rng.uniform(0.25, 0.5) * min(width / (box[2] - box[0]), height / (box[3] - box[1]))
    wide, high = max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))
    object_ = Image.fromarray(other).crop(box).resize((wide, high), Image.Resampling.BICUBIC)
    mask = Image.fromarray(np.uint8(other_labels == class_id)).crop(box).resize((wide, high), Image.Resampling.NEAREST)
    top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
    image, labels, inside = image.copy(), labels.copy(), np.asarray(mask) > 0
    place = slice(top, top + high), slice(left, left + wide)
    image[place][inside] = np.asarray(object_)[inside]
    labels[place][inside] = class_id
    return image, labels


def _number(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big")
