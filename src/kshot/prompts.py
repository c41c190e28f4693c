"""From shots to supports: read each image once, encode it, and turn its prompts into soft masks on the grid."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.errors import EmptyMaskError, MaskError, SettingError
from kshot.formats.images import name_of, read_image, read_mask
from kshot.methods.base import Support
from kshot.ops.geometry import FeatureMap, coverage, to_grid
from kshot.ops.seeds import grow_boxes, grow_marks, salient
from kshot.types import IGNORE, Shot, check_same_size

# A mask must cover at least this much, in cells: less is dominated by whatever else those cells show.
MIN_CELLS = 0.5


@dataclass
class _Image:
    """The shots of one image and what has been read of it."""

    name: str
    picture: NDArray[np.uint8]
    shots: list[Shot] = field(default_factory=list)


def encode_shots(
    shots: Iterable[Shot],
    classes: Sequence[str],
    features_of: Callable[[NDArray[np.uint8]], FeatureMap],
    max_pixels: int,
) -> tuple[Support, ...]:
    """One support per image, with masks (N, gh, gw) in the order of `classes`.

    Shots that share an image share its encoding, and one's foreground is no background of the other.
    Raises the `InputError`s of reading, `MaskError`, `EmptyMaskError`, and `SettingError` for text.
    """
    images = _by_image(shots, max_pixels)
    return tuple(_encode(image, classes, features_of(image.picture), max_pixels) for image in images)


def _by_image(shots: Iterable[Shot], max_pixels: int) -> list[_Image]:
    images: dict[bytes, _Image] = {}
    for shot in shots:
        if shot.image is None:
            raise SettingError(
                f"the text {shot.text!r}: neither this method nor this backbone reads words; "
                "give an image of the class, with or without a mask"
            )
        picture = read_image(shot.image, max_pixels=max_pixels)
        key = hashlib.sha256(picture.tobytes() + repr(picture.shape).encode()).digest()
        images.setdefault(key, _Image(name_of(shot.image), picture)).shots.append(shot)
    return list(images.values())


def _encode(image: _Image, classes: Sequence[str], features: FeatureMap, max_pixels: int) -> Support:
    size_hw = features.frame.size_hw
    masks = torch.zeros(len(classes), *features.grid_hw)
    known = coverage(features.frame)
    for shot in image.shots:
        if shot.mask is not None:
            labels = read_mask(shot.mask, max_pixels=max_pixels)
            check_same_size(labels.shape, size_hw, f"the mask of {image.name}")
            shown, labelled = _from_labels(labels, shot, features, image.name)
            known = torch.minimum(known, labelled)
        else:
            _check_inside(shot, size_hw, image.name)
            shown = {shot.classes[0]: _from_marks(shot, features)}
        for name, mask in shown.items():
            if name in classes:
                index = classes.index(name)
                masks[index] = torch.maximum(masks[index], mask)
    return Support(features, _share(masks, known), known)


def _from_labels(
    labels: NDArray[np.uint8], shot: Shot, features: FeatureMap, name: str
) -> tuple[dict[str, Tensor], Tensor]:
    """{class: (gh, gw)} of a label map, and the part of each cell that is labelled."""
    frame = features.frame
    wanted = {1: shot.label} if isinstance(shot.label, str) else dict(shot.label)
    if isinstance(shot.label, str):
        labels = np.where(labels == IGNORE, labels, (labels > 0).astype(np.uint8))
    stray = sorted(set(np.unique(labels).tolist()) - {0, IGNORE, *wanted})
    if stray:
        raise MaskError(f"the mask of {name}: labels {stray} are in no class; name them, or set them to 0 or 255")
    part = coverage(frame)
    known = to_grid(torch.from_numpy(labels != IGNORE).float(), frame) * part
    shown = {}
    for label, class_name in wanted.items():
        mask = to_grid(torch.from_numpy(labels == label).float(), frame) * part
        if float(mask.sum()) < MIN_CELLS:
            side = frame.patch
            found = "marks no pixel" if float(mask.sum()) == 0 else f"covers no {side}x{side} patch"
            raise EmptyMaskError(
                f"the mask of {name}: {class_name!r} {found}; mark more of the object, raise --size, or leave it out"
            )
        shown[class_name] = mask
    return shown, known


def _from_marks(shot: Shot, features: FeatureMap) -> Tensor:
    """(gh, gw) soft mask of boxes, points, scribbles or nothing."""
    if shot.boxes is not None:
        return grow_boxes(features, np.asarray(shot.boxes), _points(shot.points), _points(shot.negative_points))
    if shot.points is not None:
        return grow_marks(features, _points(shot.points), _points(shot.negative_points))
    if shot.scribbles is not None:
        positive = np.concatenate([_along(np.asarray(line)) for line in shot.scribbles])
        lines = [_along(np.asarray(line)) for line in shot.negative_scribbles or ()]
        return grow_marks(features, positive, np.concatenate(lines) if lines else _points(None))
    return salient(features)


def _check_inside(shot: Shot, size_hw: tuple[int, int], name: str) -> None:
    height, width = size_hw
    for kind in ("boxes", "points", "negative_points"):
        rows = getattr(shot, kind)
        if rows is None:
            continue
        x0, y0, x1, y1 = rows.T if kind == "boxes" else (*rows.T, *rows.T)
        if ((x1 < 0) | (y1 < 0) | (x0 >= width) | (y0 >= height)).any():
            raise MaskError(f"{kind} of {name}: {rows.tolist()} lie outside the image of {width} x {height} pixels")


def _share(masks: Tensor, known: Tensor) -> Tensor:
    """Where classes overlap in a cell they share what is labelled of it."""
    total = masks.sum(0).clamp(min=1e-6)
    return masks * torch.minimum(total, known) / total


def _points(rows: object) -> NDArray[np.float64]:
    return np.zeros((0, 2)) if rows is None else np.asarray(rows, np.float64)


def _along(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points no more than four pixels apart along a polyline (n, 2)."""
    pieces = [line[:1]]
    for start, end in pairwise(line):
        steps = max(1, int(np.ceil(np.abs(end - start).max() / 4)))
        pieces.append(start + (end - start) * (np.arange(1, steps + 1) / steps)[:, None])
    return np.concatenate(pieces)
