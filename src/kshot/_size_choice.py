"""The working size of a Segmenter's task, where the size is to be chosen: supports with masks are left out in turn."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kshot.methods.base import Support
from kshot.ops.geometry import Frame
from kshot.prompts import MaskedImage, masked_images
from kshot.types import SupportSet
from kshot.working_size import SizeChoice, choose_size, images_to_try

if TYPE_CHECKING:
    from kshot.segmenter import Segmenter


def choose_size_for(segmenter: "Segmenter", shots: SupportSet) -> SizeChoice:
    """Try the Segmenter's sizes on the images of which every shot is a mask, at most ten of them.

    A left-out image counts as showing its classes, so none is left out of its mask. Raises as `Segmenter.encode`.
    """
    images = masked_images(shots, segmenter.shot_reader)
    areas = np.array([_areas(image, shots.classes, segmenter) for image in images]).reshape(-1, len(shots.classes))
    tried = list(images_to_try(areas))
    images, areas = [images[index] for index in tried], areas[tried]
    shown = np.flatnonzero(areas.any(0))
    names = tuple(shots.classes[way] for way in shown)

    @cache
    def encoded(size: int) -> tuple[Support, ...]:
        return segmenter.at_size(size).encode([shot for image in images for shot in image.shots], names)

    def predict(size: int, index: int) -> NDArray[np.uint8]:
        sized, supports = segmenter.at_size(size), encoded(size)
        others = supports[:index] + supports[index + 1 :]
        task = sized.method.Task(names, others, sized.feature_spec, sized.settings)
        pixels = sized.shot_reader.pixels(images[index].shots[0])
        return sized.decide(task, supports[index].features, pixels, min_presence=0.0).mask

    def truth(index: int) -> NDArray[np.uint8]:
        return images[index].labels(names, segmenter.max_pixels)

    return choose_size(segmenter.sizes, areas[:, shown], truth, predict)


def _areas(image: MaskedImage, classes: Sequence[str], segmenter: "Segmenter") -> NDArray[np.floating]:
    """(N,) how many patches each class covers at the smallest size; less than one counts as none."""
    labels = image.labels(classes, segmenter.max_pixels)
    rows, columns = Frame.fit(image.size_hw, segmenter.sizes[0], segmenter.backbone.spec.patch).grid_hw
    pixels = np.bincount(labels.ravel(), minlength=len(classes) + 1)[1 : len(classes) + 1]
    patches = pixels * (rows * columns / labels.size)
    return np.where(patches < 1, 0.0, patches)
