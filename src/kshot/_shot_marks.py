"""What a shot says of its image, in pixels: the labels of a mask, or boxes, points and scribbles, which grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kshot.errors import MaskError
from kshot.io.class_masks import read_class_mask
from kshot.io.images import read_mask
from kshot.ops.geometry import FeatureMap, to_pixels
from kshot.ops.prompt_masks import grow_boxes, grow_marks, points_along, salient
from kshot.ops.support_crops import Window
from kshot.types import IGNORE, Shot, check_same_size

Points = NDArray[np.float64]
_EVEN = 0.5  # of soft masks


@dataclass(frozen=True, eq=False)
class Marks:
    """What one shot says of an image, in pixels: labels, or marks that grow."""

    shot: Shot
    labels: NDArray[np.uint8] | None = None
    """(h, w) of a mask."""
    wanted: Mapping[int, str] = field(default_factory=dict)
    """{label: class} of a mask."""
    numbers: NDArray[np.integer] | None = None
    """(h, w) that tell the objects of a mask apart, where they are known."""
    boxes: Points | None = None
    """(n, 4) xyxy."""
    on: Points = field(default_factory=lambda: np.zeros((0, 2)))
    """(n, 2) xy, points on the class, those along scribbles among them."""
    off: Points = field(default_factory=lambda: np.zeros((0, 2)))
    """(n, 2) xy, points off the class."""
    valid_mask: NDArray[np.bool_] | None = None
    """(h, w), pixels of the image that hold data; None where all do. Where there are none, labels are 255."""

    @classmethod
    def of(
        cls,
        shot: Shot,
        size_hw: tuple[int, int],
        name: str,
        max_pixels: int,
        valid_mask: NDArray[np.bool_] | None = None,
    ) -> "Marks":
        """Raises `InputError`s of reading a mask and `MaskError` where marks do not fit the image."""
        if shot.mask is None:
            _check_inside(shot, size_hw, name)
            boxes = None if shot.boxes is None else np.asarray(shot.boxes, np.float64)
            on, off = _points(shot.points, shot.scribbles), _points(shot.negative_points, shot.negative_scribbles)
            return cls(shot, boxes=boxes, on=on, off=off, valid_mask=valid_mask)
        if isinstance(shot.label, str):
            read = read_class_mask(shot.mask, max_pixels=max_pixels)
            labels, wanted, numbers = read.pixels, {1: shot.label}, read.objects
        else:
            labels, wanted, numbers = read_mask(shot.mask, max_pixels=max_pixels), dict(shot.label), None
        check_same_size(labels.shape, size_hw, f"the mask of {name}")
        check_known(labels, wanted, name)
        if valid_mask is not None:
            labels = np.where(valid_mask, labels, np.uint8(IGNORE))
        return cls(shot, labels, wanted, numbers if shot.objects is None else shot.objects, valid_mask=valid_mask)

    def within(self, window: Window) -> "Marks":
        """The same of a part of the image."""
        labels = None if self.labels is None else self.labels[window.slices]
        valid_mask = None if self.valid_mask is None else self.valid_mask[window.slices]
        height, width = window.size_hw
        boxes = None if self.boxes is None else window.moved(self.boxes).clip(0, [width, height, width, height])
        on, off = (window.moved(points) for points in (self.on, self.off))
        on, off = (points[((points >= 0) & (points < [width, height])).all(1)] for points in (on, off))
        return replace(self, labels=labels, boxes=boxes, on=on, off=off, valid_mask=valid_mask)

    def shown(self, features: FeatureMap) -> NDArray[np.bool_]:
        """(h, w): the pixels that show a class, and the points that say so; features: of the whole image."""
        if self.labels is not None:
            return np.isin(self.labels, list(self.wanted))
        found = to_pixels(self.grown(features)[None], features.frame)[0].numpy() > _EVEN
        columns, rows = self.on.astype(int).T
        found[rows.clip(0, found.shape[0] - 1), columns.clip(0, found.shape[1] - 1)] = True
        return found if self.valid_mask is None else found & self.valid_mask

    def grown(self, features: FeatureMap) -> Tensor:
        """(gh, gw) soft mask of boxes, points, scribbles or nothing."""
        if self.boxes is not None:
            return grow_boxes(features, self.boxes, self.on, self.off)
        return salient(features) if self.shot.prompt == "none" else grow_marks(features, self.on, self.off)


def _check_inside(shot: Shot, size_hw: tuple[int, int], name: str) -> None:
    height, width = size_hw
    for kind in ("boxes", "points", "negative_points"):
        rows = getattr(shot, kind)
        if rows is None:
            continue
        x0, y0, x1, y1 = rows.T if kind == "boxes" else (*rows.T, *rows.T)
        if ((x1 < 0) | (y1 < 0) | (x0 >= width) | (y0 >= height)).any():
            raise MaskError(f"{kind} of {name}: {rows.tolist()} lie outside the image of {width} x {height} pixels")


def check_known(labels: NDArray[np.uint8], wanted: Mapping[int, str], name: str) -> None:
    """Refuse a label map of the image `name` with labels other than the `wanted` ones, 0 and 255: `MaskError`."""
    stray = sorted(set(np.unique(labels).tolist()) - {0, IGNORE, *wanted})
    if stray:
        raise MaskError(f"the mask of {name}: labels {stray} are in no class; name them, or set them to 0 or 255")


def _points(rows: ArrayLike | None, lines: Sequence[ArrayLike] | None) -> Points:
    """(n, 2) xy: points, and those along lines."""
    points = np.zeros((0, 2)) if rows is None else np.asarray(rows, np.float64)
    return np.concatenate([points, *(points_along(np.asarray(line, np.float64)) for line in lines or ())])
