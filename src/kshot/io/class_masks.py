"""Masks of one class: what is drawn in white, in an alpha channel, as a label, or as the numbers of objects."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ShapeError
from kshot.io.greys import is_soft
from kshot.io.images import (
    LOSSY,
    alpha_extremes,
    array_of_tensor,
    integer_mask,
    name_of,
    one_band,
    opened_image,
    upright,
)
from kshot.types import IGNORE, MaskLike


class MaskKind(Enum):
    """How a mask of one class says where it is."""

    DRAWN = "black and white"
    SOFT = "greys with soft edges, cut in the middle"
    ALPHA = "their alpha channel"
    PALETTE = "labels of a palette"
    LABELS = "labels"
    DEEP = "labels of more than 8 bits"


@dataclass(frozen=True, eq=False)
class ClassMask:
    """What a mask of one class says."""

    pixels: NDArray[np.uint8]
    """(h, w): 1 where the class is, 0 where it is not, 255 where nobody decided."""
    kind: MaskKind
    labels: tuple[int, ...] = ()
    """What it marks the class with, without 0 and without 255 where that means ignore; of drawings none."""
    objects: NDArray[np.integer] | None = None
    """(h, w): the number of the object that each pixel is of, 0 outside; None where one label marks all."""


def read_class_mask(mask: MaskLike, *, max_pixels: int | None = None) -> ClassMask:
    """Read a mask of one class: any label but 0 is the class.

    Of an image with transparency the alpha channel counts; what was drawn with soft edges, and any JPEG, is cut in the
    middle. 255 means ignore in palette images and arrays, and in grey images that hold other labels, unless it counts
    an object there: 254 or more than 255 is a label too. Raises `ShapeError` (colours, no whole labels) and
    `ImageReadError`.
    """
    if isinstance(mask, np.ndarray):
        values = _whole(mask, name_of(mask))
        return _of_labels(values, MaskKind.LABELS, drawn=False)
    if hasattr(mask, "detach"):
        return _of_labels(_whole(array_of_tensor(mask), "the mask tensor"), MaskKind.LABELS, drawn=False)
    with opened_image(mask, max_pixels) as file:
        lossy = file.format in LOSSY
        turned = upright(file)
        image = one_band(turned, name_of(mask), drawn=True)
        by_alpha = alpha_extremes(turned) is not None
        values = _whole(np.asarray(image), name_of(mask))
    if by_alpha:
        return ClassMask((values > 0).view(np.uint8), MaskKind.ALPHA)
    if lossy and 0 < values.max() < 128:
        raise ShapeError(f"{name_of(mask)}: labels do not survive in a JPEG; save the mask as PNG")
    soft = not lossy and values.dtype in (np.uint8, np.uint16) and image.mode != "P" and is_soft(values)
    if lossy or soft:
        half = np.iinfo(values.dtype).max // 2
        return ClassMask((values > half).astype(np.uint8), MaskKind.SOFT if soft else MaskKind.DRAWN)
    kinds = {"P": MaskKind.PALETTE, "L": MaskKind.LABELS, "1": MaskKind.DRAWN}
    return _of_labels(values, kinds.get(image.mode, MaskKind.DEEP), drawn=image.mode != "P")


def _of_labels(values: NDArray[np.integer], kind: MaskKind, *, drawn: bool) -> ClassMask:
    labels = set(np.unique(values).tolist()) - {0}
    counts_objects = IGNORE - 1 in labels or max(labels, default=0) > IGNORE
    pixels = (values > 0).astype(np.uint8)
    if drawn and labels <= {IGNORE} | {np.iinfo(values.dtype).max if values.dtype.kind != "b" else 1}:
        return ClassMask(pixels, MaskKind.DRAWN)
    if not counts_objects:
        pixels[values == IGNORE] = IGNORE
        labels -= {IGNORE}
    objects = np.where(pixels == 1, values, values.dtype.type(0)) if len(labels) > 1 else None
    return ClassMask(pixels, kind, tuple(sorted(labels)), objects)


def _whole(array: NDArray[Any], name: str) -> NDArray[np.integer]:
    """A mask (h, w) of whole numbers from 0. Raises `ShapeError`."""
    whole = integer_mask(array, name)
    if whole.min() < 0:
        raise ShapeError(f"{name}: expected labels from 0, got {whole.min()}")
    return whole
