"""From shots to supports: read each image once, encode it, and turn its prompts into soft masks on the grid.

Words become supports too: a cell for each text, and one support of background words, which stand for no class and
give text classes something to lose against.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.errors import EmptyMaskError, MaskError, SettingError, SupportError
from kshot.io.images import name_of, read_image, read_mask
from kshot.io.rasters import Look
from kshot.methods.base import Support
from kshot.ops.geometry import FeatureMap, coverage, to_grid
from kshot.ops.prompt_masks import grow_boxes, grow_marks, salient
from kshot.types import IGNORE, Shot, check_same_size

# A mask must cover at least this much, in cells: less is dominated by whatever else those cells show.
MIN_CELLS = 0.5
# Two classes contradict each other when they share more than this part of the smaller one.
_CONTRADICTORY = 0.5
# What most pictures hold besides objects, in plain words (open-vocabulary methods on CLIP use lists like it).
BACKGROUND_WORDS = ("background", "sky", "ground", "wall", "floor", "grass", "trees", "water", "road", "building")
Words = Callable[[Sequence[str]], FeatureMap]


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
    words_of: Words | None = None,
    look: Look | None = None,
) -> tuple[Support, ...]:
    """One support per image, then those of words, with masks (N, gh, gw) in the order of `classes`.

    Shots that share an image share its encoding, and one's foreground is no background of the other. words_of: embeds
    n texts as a row of n cells. look: bands and stretch of TIFFs. Raises the `InputError`s of reading, `MaskError`,
    `EmptyMaskError`, `SupportError` where masks of one image contradict each other, and what `words_of` raises for a
    backbone that reads no words.
    """
    given = tuple(shots)
    texts = [shot for shot in given if shot.text]
    if texts and words_of is None:
        raise SettingError(f"the text {texts[0].text!r}: nothing here reads words; give an image of the class")
    words = _encode_words(texts, classes, words_of) if words_of and texts else ()
    images = _by_image((shot for shot in given if not shot.text), max_pixels, look or Look())
    supports = tuple(_encode(image, classes, features_of(image.picture), max_pixels) for image in images)
    promised = {name for image in images for shot in image.shots for name in shot.classes}
    _check_all_shown(supports, classes, promised)
    return supports + words


def _encode_words(shots: Sequence[Shot], classes: Sequence[str], words_of: Words) -> tuple[Support, ...]:
    """One support per text, and one of the background words."""
    texts = [str(shot.text).strip() for shot in shots]
    supports = []
    for shot, text in zip(shots, texts, strict=True):
        masks = torch.zeros(len(classes), 1, 1)
        if shot.classes[0] in classes:
            masks[classes.index(shot.classes[0])] = 1
        supports.append(Support(words_of([text]), masks, torch.ones(1, 1), "text", float(shot.weight)))
    row = words_of(BACKGROUND_WORDS)
    nothing = torch.zeros(len(classes), *row.grid_hw)
    return (*supports, Support(row, nothing, torch.ones(row.grid_hw), "text"))


def _by_image(shots: Iterable[Shot], max_pixels: int, look: Look) -> list[_Image]:
    images: dict[bytes, _Image] = {}
    for shot in shots:
        if shot.image is None:
            continue
        picture = read_image(shot.image, max_pixels=max_pixels, look=look)
        key = hashlib.sha256(picture.tobytes() + repr(picture.shape).encode()).digest()
        images.setdefault(key, _Image(name_of(shot.image), picture)).shots.append(shot)
    return list(images.values())


def labelled_support(
    labels: NDArray[np.uint8], wanted: Mapping[int, str], classes: Sequence[str], features: FeatureMap, name: str
) -> Support:
    """The support of a label map (h, w): `wanted` names its labels, 255 is ignored, any other but 0 is refused.

    Raises `MaskError` and `EmptyMaskError`, which call the image `name`.
    """
    check_same_size(labels.shape, features.frame.size_hw, f"the mask of {name}")
    shown, known = _from_labels(labels, wanted, features, name)
    masks = torch.zeros(len(classes), *features.grid_hw)
    for class_name, mask in shown.items():
        if class_name in classes:
            masks[classes.index(class_name)] = mask
    return Support(features, _share(masks, known), known)


def _encode(image: _Image, classes: Sequence[str], features: FeatureMap, max_pixels: int) -> Support:
    masks = torch.zeros(len(classes), *features.grid_hw)
    known = coverage(features.frame)
    for shot in image.shots:
        shown = _shown(shot, classes, features, image.name, max_pixels)
        known = torch.minimum(known, shown.known)
        masks = torch.maximum(masks, shown.masks)
    if all(shot.mask is not None for shot in image.shots):
        _check_consistent(masks, known, classes, image.name)
    kind = "image" if all(shot.prompt == "none" for shot in image.shots) else "mask"
    weight = max(float(shot.weight) for shot in image.shots)
    return Support(features, _share(masks, known), known, kind, weight)


def _check_consistent(masks: Tensor, known: Tensor, classes: Sequence[str], name: str) -> None:
    """Pixels may be of one class alone; a rim that two people drew differently is let pass and shared."""
    shown = [(index, mask) for index, mask in enumerate(masks) if bool(mask.any())]
    for (i, first), (j, second) in combinations(shown, 2):
        twice = float((first + second - known).clamp(min=0).sum())
        if twice > _CONTRADICTORY * min(float(first.sum()), float(second.sum())):
            raise SupportError(
                f"{name}: the masks of {classes[i]!r} and {classes[j]!r} cover the same region; "
                "a pixel is of one class: take it out of one of them, or set it to 255 (ignore) in both"
            )


def _shown(shot: Shot, classes: Sequence[str], features: FeatureMap, name: str, max_pixels: int) -> Support:
    """What one shot says of an image."""
    if shot.mask is not None:
        labels = read_mask(shot.mask, max_pixels=max_pixels)
        if isinstance(shot.label, str):
            labels = np.where(labels == IGNORE, labels, (labels > 0).astype(np.uint8))
        return labelled_support(labels, _wanted(shot), classes, features, name)
    _check_inside(shot, features.frame.size_hw, name)
    masks = torch.zeros(len(classes), *features.grid_hw)
    if shot.classes[0] in classes:
        masks[classes.index(shot.classes[0])] = _from_marks(shot, features)
    return Support(features, masks, coverage(features.frame))


def _wanted(shot: Shot) -> dict[int, str]:
    return {1: shot.label} if isinstance(shot.label, str) else dict(shot.label)


def _from_labels(
    labels: NDArray[np.uint8], wanted: Mapping[int, str], features: FeatureMap, name: str
) -> tuple[dict[str, Tensor], Tensor]:
    """{class: (gh, gw)} of a label map, and the part of each cell that is labelled."""
    frame = features.frame
    stray = sorted(set(np.unique(labels).tolist()) - {0, IGNORE, *wanted})
    if stray:
        raise MaskError(f"the mask of {name}: labels {stray} are in no class; name them, or set them to 0 or 255")
    part = coverage(frame)
    known = to_grid(torch.from_numpy(labels != IGNORE).float(), frame) * part
    shown = {}
    for label, class_name in wanted.items():
        mask = to_grid(torch.from_numpy(labels == label).float(), frame) * part
        if float(mask.sum()) >= MIN_CELLS:
            shown[class_name] = mask
        elif len(wanted) == 1:
            raise EmptyMaskError(_too_small(name, class_name, float(mask.sum()), frame.patch))
        else:  # a speck of one class among others teaches nothing, and is no background either
            known = known - mask
    return shown, known


def _check_all_shown(supports: Sequence[Support], classes: Sequence[str], promised: Set[str]) -> None:
    """A class that several-class masks name must be large enough in one of them at least."""
    for index, name in enumerate(classes):
        if name in promised and not any(bool(support.masks[index].any()) for support in supports):
            patch = supports[0].features.frame.patch
            raise EmptyMaskError(_too_small("every support", name, 1.0, patch))


def _too_small(where: str, class_name: str, cells: float, patch: int) -> str:
    if cells == 0:
        return f"the mask of {where}: {class_name!r} marks no pixel; mark the object, or leave the image out"
    return (
        f"the mask of {where}: {class_name!r} covers no {patch}x{patch} patch; "
        "mark more of the object, raise --size, or leave it out"
    )


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
