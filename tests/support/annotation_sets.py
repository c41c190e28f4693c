"""Annotation sets from arrays, and back, for the tests of the formats that hold whole folders."""

from pathlib import Path

import numpy as np
from PIL import Image

from kshot.annotations.model import Annotation, AnnotationSet, LabelledImage
from kshot.types import IGNORE

CLASSES = ("one", "two", "three")


def annotation_set(root: Path, masks: dict[str, np.ndarray], classes: tuple[str, ...] = CLASSES) -> AnnotationSet:
    """The annotations of index masks whose images are written below `root`."""
    images = []
    for name, mask in masks.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*mask.shape, 3), 90, np.uint8)).save(path)
        images.append(LabelledImage(name, mask.shape, tuple(parts(mask, classes)), path))
    return AnnotationSet(classes, images)


def parts(mask: np.ndarray, classes: tuple[str, ...] = CLASSES) -> list[Annotation]:
    found = [Annotation.from_mask(mask == i, name, 0.5) for i, name in enumerate(classes, 1) if (mask == i).any()]
    return found + ([Annotation.from_mask(mask == IGNORE, "", ignore=True)] if (mask == IGNORE).any() else [])


def masks(read: AnnotationSet | None, classes: tuple[str, ...] = CLASSES) -> dict[str, np.ndarray]:
    """{stem: labels as `classes` number them} of what was read."""
    assert read is not None
    return {image.stem: image.labels(classes) for image in read.images}
