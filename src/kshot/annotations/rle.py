"""Run lengths of masks, column by column, as COCO compresses them: {"size": [h, w], "counts": bytes}.

pycocotools does the work, but fills run lengths that end early with whatever the memory held: those of strangers go
through `decode_counts` and `encode_counts`, which check them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from kshot.errors import SupportError
from kshot.io import limits

Rle = dict[str, Any]
_AT_ONCE = 2**22  # pixels of a mask whose runs are looked for at once


def encode(mask: NDArray[Any]) -> Rle:
    """The run lengths of a mask (h, w), everything but zero."""
    encoded: Rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return encoded


def encode_at(crop: NDArray[np.bool_], left: int, top: int, size_hw: tuple[int, int]) -> Rle:
    """The run lengths of a mask that is a crop (h, w) with nothing around it; the crop has to fit."""
    if not crop.any():
        return encode_counts([math.prod(size_hw)], size_hw)
    height, width = crop.shape
    return encode_crop(crop, (slice(top, top + height), slice(left, left + width)), size_hw)


def encode_polygon(points: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Rle:
    """The run lengths of a polygon's inside by the even-odd rule; what lies outside the image is cut off.

    The corners [[x, y], ...] have to be finite and near the image: memory and work grow with the polygon's outline.
    Raises `SupportError` for one that is longer than `limits.OUTLINE` allows.
    """
    corners = np.asarray(points, np.float64)
    length = float(np.abs(np.diff(corners, axis=0, append=corners[:1])).max(1).sum())
    if length > limits.OUTLINE.value:
        raise SupportError(
            f"a polygon of {len(corners):,} corners has an outline of {length:,.0f} pixels, over the limit of "
            f"{limits.OUTLINE.value:,}; raise {limits.OUTLINE.variable}"
        )
    encoded: list[Rle] = coco.frPyObjects([corners.ravel().tolist()], *size_hw)
    return encoded[0]


def encode_counts(counts: Sequence[int], size_hw: tuple[int, int]) -> Rle:
    """The run lengths of plain counts, outside first. Raises `ValueError` unless they add up to the image."""
    if sum(counts) != math.prod(size_hw):
        raise ValueError(f"its RLE covers {sum(counts)} pixels, but its image has {math.prod(size_hw)}")
    encoded: Rle = coco.frPyObjects({"size": list(size_hw), "counts": list(counts)}, *size_hw)
    return encoded


def encode_crop(crop: NDArray[np.bool_], place: tuple[slice, slice], size_hw: tuple[int, int]) -> Rle:
    """The run lengths of a crop of a mask that begins at `place`; the work grows with the crop, not with the image."""
    top, left, step = place[0].start, place[1].start, max(1, _AT_ONCE // len(crop))
    starts = range(0, crop.shape[1], step)
    return encode_runs([runs(crop[:, x : x + step], (top, left + x), size_hw) for x in starts], size_hw)


def runs(crop: NDArray[np.bool_], corner_yx: tuple[int, int], size_hw: tuple[int, int]) -> NDArray[np.int64]:
    """(n, 2) first and next pixels of the runs in a crop of a mask, as COCO counts pixels: column by column.

    corner_yx: where the crop lies in the image. Takes several times the memory of the crop.
    """
    turns = np.diff(np.pad(crop, ((1, 1), (0, 0))).T.view(np.int8), axis=1)  # (w, h + 1)
    ends = [np.argwhere(turns == turn) for turn in (1, -1)]
    return np.stack([(x + corner_yx[1]) * size_hw[0] + y + corner_yx[0] for x, y in (end.T for end in ends)], 1)


def encode_runs(found: Sequence[NDArray[np.int64]], size_hw: tuple[int, int]) -> Rle:
    """The run lengths of `runs` of crops from left to right, at least one run in all."""
    starts, ends = np.concatenate(found).T
    apart = starts[1:] != ends[:-1]  # in a crop as tall as the image a run goes on in the next column
    starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
    edges = np.stack([starts, ends], 1).ravel()
    rest = [size_hw[0] * size_hw[1] - int(edges[-1])] if edges[-1] < size_hw[0] * size_hw[1] else []
    return encode_counts(np.diff(edges, prepend=0).tolist() + rest, size_hw)


def merge(masks: Sequence[Rle]) -> Rle:
    """The run lengths of all that any of the masks marks."""
    merged: Rle = coco.merge(list(masks))
    return merged


def subtract(mask: Rle, hole: Rle) -> Rle:
    """The run lengths of what a mask marks and a hole does not."""
    counts = decode_counts(hole["counts"].decode("ascii"))
    around = encode_counts(counts[1:] if counts[0] == 0 else [0, *counts], hole["size"])
    left: Rle = coco.merge([mask, around], intersect=True)
    return left


def decode(mask: Rle) -> NDArray[np.bool_]:
    """(h, w) truth values."""
    decoded: NDArray[np.bool_] = coco.decode(mask).view(np.bool_)  # zeros and ones of a byte: no copy
    return decoded


def area(mask: Rle) -> int:
    """The pixels that are marked."""
    return int(coco.area(mask))


def ious(first: Sequence[Rle], second: Sequence[Rle]) -> NDArray[np.float64]:
    """(n, m) intersection over union of each of some masks with each of others of the same size."""
    found: NDArray[np.float64] = coco.iou(list(first), list(second), [0] * len(second))
    return found


def box_xywh(mask: Rle) -> list[float]:
    """The smallest box around what is marked: left, top, width, height."""
    return [float(side) for side in coco.toBbox(mask)]


def decode_crop(mask: Rle) -> tuple[int, int, NDArray[np.bool_]]:
    """(left, top, mask (h, w)) of the smallest box around what is marked; no other columns are decoded."""
    x, y, width, height = (int(side) for side in box_xywh(mask))
    tall = mask["size"][0]
    ends = np.cumsum(decode_counts(mask["counts"].decode("ascii")))
    lengths = np.diff(np.clip(ends - x * tall, 0, width * tall), prepend=0)
    slab = np.repeat(np.arange(len(ends)) % 2 == 1, lengths).reshape(width, tall)
    return x, y, np.ascontiguousarray(slab.T[y : y + height])


def decode_counts(text: str) -> list[int]:
    """Lengths of the runs in COCO's compressed counts: five bits a character, differences from the third run on.

    Raises `ValueError`.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"no compressed RLE has the character {character!r}")
        value |= (code & 31) << shift
        shift += 5
        if shift > 60:
            raise ValueError("its compressed RLE holds a number beyond any image")
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its compressed RLE ends within a number")
    return counts


def row_counts(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs of a mask (h, w) row by row, as CVAT and Label Studio count; the first, outside, may be 0."""
    flat = np.concatenate([[False], mask.ravel(), [False]])
    ends = np.append(np.flatnonzero(flat[1:-1] != flat[:-2]), mask.size)
    return np.diff(ends, prepend=0)
