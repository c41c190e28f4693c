"""Labelled images to fine-tune an encoder on: where they come from, and the batches that episodes are made of.

A source is a set of images that were labelled together, so what no class covers is background there. In a batch all
images are of one source and show some of the same classes, so that each is a query for all others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from kshot.backbones.base import Spec
from kshot.data.base import Dataset
from kshot.errors import DatasetError, SettingError
from kshot.features.lru import BoundedCache
from kshot.io.images import read_image
from kshot.training.textures import texture_views
from kshot.training.unlabelled import RGB, color_jitter, random_resized_crop_box, seeded_rng, to_pixels
from kshot.types import IGNORE

_BATCH = 21  # a random stream of its own
_MIN_IMAGES = 3  # of a class: two supports and a query
_MIN_SHARE = 0.004  # of an image's area, below which a class does not count as shown
_MAX_CLASSES = 4  # of a batch; more would leave too few images to each
_WHOLE = 0.35  # fraction of the views that show the whole image
_MIN_AREA = 0.4  # of a random crop, as a fraction of the image's
_TRIES = 8  # random crops, until one shows the class
_IMAGE_BYTES = 3 * 2**30
Labels = NDArray[np.uint8]


class LabelledBatch(NamedTuple):
    """Views of one source."""

    pixels: Tensor
    """(b, 3, side, side), normalised."""
    labels: Tensor
    """(b, side, side) long: class ids, 0 background, 255 ignored."""
    classes: tuple[int, ...]
    """Ids of the classes that are searched for; the others count as background."""
    objects: bool = True
    """False where the classes are textures, of which image tokens and objectness learn nothing."""


@dataclass(frozen=True, eq=False)
class Source:
    """Images that were labelled together."""

    name: str
    data: Dataset
    images: dict[int, tuple[str, ...]] = field(repr=False)
    """Ids of the images that show a class, by class id."""
    ignored: frozenset[int] = frozenset()
    """Classes whose pixels are ignored: the novel ones."""

    @property
    def weight(self) -> float:
        """How often it is drawn, beside others: more classes and more images teach more."""
        shown = {image for images in self.images.values() for image in images}
        return float((len(self.images) * len(shown)) ** 0.5)


def mask_sources(
    whole: Sequence[Dataset], by_prefix: Sequence[Dataset] = (), novel: Sequence[str] = ()
) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """Sources of data sets, and notes about what is left out of them.

    whole: data sets in which every image is labelled for all classes. by_prefix: data sets of several sources, each
    with classes of its own, whose images' names begin with the source's name and "_". novel: names of classes that
    nothing is learned about; their pixels are ignored. Classes of fewer than three images are left out.
    Raises `DatasetError` where nothing is left, and `SettingError` for a novel class that no data set has.
    """
    known = {name for data in (*whole, *by_prefix) for name in data.classes}
    missing = sorted(set(novel) - known)
    if missing:
        raise SettingError(f"novel classes {', '.join(missing)}: no data set has them; give names of its classes")
    found, notes = [], []
    for data, split in [(data, False) for data in whole] + [(data, True) for data in by_prefix]:
        ignored = frozenset(c for c, name in enumerate(data.classes, 1) if name in novel)
        groups: dict[str, dict[int, list[str]]] = {}
        for image, class_id in _shown(data):
            if class_id not in ignored:
                group = image.rsplit("/", 1)[-1].split("_", 1)[0] if split else ""
                groups.setdefault(group, {}).setdefault(class_id, []).append(image)
        for group, classes in sorted(groups.items()):
            enough = {c: tuple(images) for c, images in sorted(classes.items()) if len(images) >= _MIN_IMAGES}
            few = [f"{data.classes[c - 1]} ({len(images)})" for c, images in classes.items() if c not in enough]
            name = f"{data.name}/{group}" if group else data.name
            if few:
                notes.append(f"{name}: left out, with fewer than {_MIN_IMAGES} images: {', '.join(sorted(few))}")
            if enough:
                found.append(Source(name, data, enough, ignored))
    if not found:
        raise DatasetError(f"no class has {_MIN_IMAGES} images to learn from; give more images with masks")
    if max(len(source.images) for source in found) == 1:
        notes.append("no source has two classes: the encoder learns to find a class, and less to tell classes apart")
    return tuple(found), tuple(notes)


def train_part(data: Dataset) -> Dataset:
    """The part of a data set that may be learned from: its split "train" alone, where it has one."""
    if "train" not in data.splits:
        return data
    return replace(data, splits={"train": data.splits["train"]}, query_split="train", support_split="train")


def _shown(data: Dataset) -> list[tuple[str, int]]:
    """(image, class id) of all splits, for classes that are not tiny in their image."""
    areas = [pair for split in data.splits for pair in data.areas(split)]
    sizes: Counter[str] = Counter()
    for pair in areas:
        sizes[pair.image] += pair.area
    # The images' own sizes are not known before they are read; the labelled area is a lower bound that serves.
    return list(dict.fromkeys((p.image, p.class_id) for p in areas if p.area >= _MIN_SHARE * sizes[p.image]))


class Batches:
    """Draws batches; what a batch holds depends on the seed and its number alone.

    spec: of the backbone that sees them. sides: pixels of the views, of which each batch takes one. textures: fraction
    of the batches (0..1) that show textures of `photos`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        spec: Spec,
        sides: Sequence[int],
        seed: int,
        photos: Sequence[Path] = (),
        textures: float = 0.0,
    ):
        self.sources, self.spec, self.sides, self.seed = tuple(sources), spec, tuple(sides), seed
        self.photos, self.textures = tuple(photos), textures if photos else 0.0
        self.weights = np.asarray([source.weight for source in sources]) / sum(source.weight for source in sources)
        self.images = BoundedCache[tuple[RGB, Labels]](_IMAGE_BYTES, lambda pair: pair[0].nbytes + pair[1].nbytes)

    def side(self, number: int) -> int:
        """Pixels of a view of a batch."""
        return self.sides[int(seeded_rng(self.seed, _BATCH, number, 0).integers(len(self.sides)))]

    def __call__(self, number: int, size: int) -> LabelledBatch:
        """Batch `number`, of `size` images."""
        rng, side = seeded_rng(self.seed, _BATCH, number, 1), self.side(number)
        if rng.random() < self.textures:
            return self._batch(*texture_views(self.photos, size, side, rng), objects=False)
        source = self.sources[int(rng.choice(len(self.sources), p=self.weights))]
        ways = min(len(source.images), int(rng.integers(2, _MAX_CLASSES + 1)))
        classes = tuple(int(c) for c in rng.choice(list(source.images), ways, replace=False))
        views, labels, drawn = [], [], set[str]()
        for place in range(size):
            class_id = classes[place % ways]
            images = [image for image in source.images[class_id] if image not in drawn] or source.images[class_id]
            image = images[int(rng.integers(len(images)))]
            drawn.add(image)
            view, shown = _view(*self._read(source, image), class_id, side, rng)
            views.append(view)
            labels.append(shown)
        return self._batch(views, labels, classes)

    def _batch(
        self, views: Sequence[Image.Image], labels: Sequence[Labels], classes: tuple[int, ...], objects: bool = True
    ) -> LabelledBatch:
        pixels = to_pixels(views, self.spec.mean_rgb, self.spec.std_rgb)
        return LabelledBatch(pixels, torch.from_numpy(np.stack(labels)).long(), classes, objects)

    def _read(self, source: Source, image: str) -> tuple[RGB, Labels]:
        return self.images.get((source.data.root, image), lambda: _read(source, image, 2 * max(self.sides)))


def _read(source: Source, image: str, longest: int) -> tuple[RGB, Labels]:
    """Pixels and labels of an image, not larger than views need them."""
    pixels, labels = Image.fromarray(read_image(source.data.image_path(image))), source.data.truth(image)
    labels = np.where(np.isin(labels, list(source.ignored)), IGNORE, labels).astype(np.uint8)
    marked = Image.fromarray(labels)
    scale = min(1.0, longest / max(pixels.size))
    size = max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale))
    return np.asarray(pixels.resize(size, Image.Resampling.BICUBIC)), np.asarray(
        marked.resize(size, Image.Resampling.NEAREST)
    )


def _view(image: RGB, labels: Labels, class_id: int, side: int, rng: np.random.Generator) -> tuple[Image.Image, Labels]:
    """A view of an image that shows the class, at random mirrored and of other colours, and its labels."""
    box = (0, 0, image.shape[1], image.shape[0])
    if rng.random() >= _WHOLE:
        for _ in range(_TRIES):
            tried = random_resized_crop_box((image.shape[0], image.shape[1]), rng, _MIN_AREA)
            if (labels[tried[1] : tried[3], tried[0] : tried[2]] == class_id).mean() > _MIN_SHARE:
                box = tried
                break
    view = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box)
    shown = Image.fromarray(labels).resize((side, side), Image.Resampling.NEAREST, box=box)
    if rng.random() < 0.5:
        view, shown = ImageOps.mirror(view), ImageOps.mirror(shown)
    return color_jitter(view, rng), np.asarray(shown)
