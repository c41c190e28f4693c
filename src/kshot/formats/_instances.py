"""The objects of one prediction, with a score each: what a mask of classes cannot hold.

Kept as one COCO file per image, so that formats written at the end of a run find them again.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from kshot.annotations.model import LabelledImage, LabelTree, Part
from kshot.errors import SupportError
from kshot.formats._coco_read import read_tree
from kshot.formats._coco_write import save
from kshot.ops.components import split
from kshot.types import Prediction

NAME = "instances"


class Writer:
    """Writes objects as a format that is one file per image; `method` is one of `ops.instances.METHODS`."""

    FOLDER = NAME
    WRITES = (".json",)

    def __init__(self, method: str):
        self.method = method

    def write(self, prediction: Prediction, path: Path) -> None:
        """Write the objects of a prediction. Raises `SettingError` and `OutputError`."""
        parts = tuple(objects(prediction, self.method))
        image = LabelledImage(path.stem, prediction.size_hw, parts)
        save(LabelTree(prediction.classes, [image], objects=True), path)


def objects(prediction: Prediction, method: str) -> Iterator[Part]:
    """The objects of each class; score: the mean score of its class over its pixels."""
    for index, name in enumerate(prediction.classes, start=1):
        score = prediction.scores[index]
        for place, crop in split(prediction.mask == index, score, method):
            part = Part.of_crop(crop, place, prediction.size_hw, name)
            yield replace(part, score=float(np.clip(score[place][crop].mean(), 0, 1)))


def read(path: Path, size_hw: tuple[int, ...]) -> tuple[Part, ...]:
    """The objects of one image. Raises `SupportError` when they are missing, damaged or of another size."""
    tree = read_tree(path, images=path) if path.is_file() else None  # without looking for the image
    images = list(tree.images) if tree else []
    if len(images) != 1 or images[0].size_hw != tuple(size_hw):
        raise SupportError(f"{path}: not the objects of an image of {size_hw[1]} x {size_hw[0]} pixels; run it again")
    return images[0].parts
