"""Shapes of COCO annotations, checked before pycocotools sees them.

pycocotools fills an RLE that ends early with whatever the memory held, and allocates by the extent of a polygon,
so runs must add up to the image and corners must lie near it.
"""

import math
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from kshot.annotations.checked_json import Item, numbers


def has_shape(item: Item) -> bool:
    """Whether the annotation says more than a box."""
    return item.values.get("segmentation") not in (None, [], {}, "")


def box(item: Item) -> list[float]:
    """Its bbox (x, y, width, height) as xyxy pixels. Raises `SupportError`."""
    values = numbers(item, item.get("bbox", list), "bbox")
    if len(values) != 4 or values[2] <= 0 or values[3] <= 0:
        raise item.wrong(f"expected bbox as x, y, width, height with a positive size, got {values}")
    x, y, width, height = values
    return [x, y, x + width, y + height]


def shape(item: Item, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Its segmentation, polygons or RLE of either kind, as a compressed RLE of the image's size.

    Raises `SupportError`, also for a bbox of negative size.
    """
    if item.values.get("bbox") not in (None, []):
        sides = numbers(item, item.get("bbox", list), "bbox")
        if len(sides) != 4 or min(sides[2:]) < 0:
            raise item.wrong(f"expected bbox as x, y, width, height, none of the sizes negative, got {sides}")
    if not has_shape(item):
        raise item.wrong("it has no segmentation, while others of its image do; give it one, or leave it out")
    segmentation = item.get("segmentation", list, dict)
    if isinstance(segmentation, dict):
        return _from_runs(item, segmentation, size_hw)
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    checked = [_polygon(item, polygon, size_hw) for polygon in polygons]
    merged: dict[str, Any] = rle.merge(rle.frPyObjects(checked, *size_hw))
    return merged


def _polygon(item: Item, polygon: Any, size_hw: tuple[int, int]) -> list[float]:
    values = numbers(item, polygon, "polygon")
    if len(values) < 6 or len(values) % 2:
        raise item.wrong(f"expected a polygon of at least three x, y corners, got {len(values)} numbers")
    height, width = size_hw
    xs, ys = values[0::2], values[1::2]
    if not (-width <= min(xs) and max(xs) <= 2 * width and -height <= min(ys) and max(ys) <= 2 * height):
        raise item.wrong(f"a polygon lies far outside its image of {width} x {height} pixels")
    return values


def _from_runs(item: Item, segmentation: dict[str, Any], size_hw: tuple[int, int]) -> dict[str, Any]:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(size_hw):
        raise item.wrong(f"expected an RLE of size {list(size_hw)} (height, width) like its image, got {short(size)}")
    runs = runs_of(item, counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or any(type(run) is not int or run < 0 for run in runs):
        raise item.wrong(f"expected RLE counts as text or a list of whole numbers, got {short(counts)}")
    if sum(runs) != math.prod(size_hw):
        raise item.wrong(f"its RLE covers {sum(runs)} pixels, but its image has {math.prod(size_hw)}")
    encoded: dict[str, Any] = rle.frPyObjects({"size": size, "counts": runs}, *size_hw)
    return encoded


def runs_of(item: Item, text: str) -> list[int]:
    """Lengths of the runs in COCO's compressed counts: five bits a character, differences from the third run on.

    Raises `SupportError`.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise item.wrong(f"no compressed RLE has the character {character!r}")
        value |= (code & 31) << shift
        shift += 5
        if shift > 60:
            raise item.wrong("its compressed RLE holds a number beyond any image")
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise item.wrong("its compressed RLE ends within a number")
    return runs


def runs(crop: NDArray[np.bool_], corner_yx: tuple[int, int], size_hw: tuple[int, int]) -> NDArray[np.int64]:
    """(n, 2) first and next pixels of the runs in a piece of a mask, as COCO counts pixels: column by column.

    corner_yx: where the piece lies in the image. Takes several times the memory of the piece.
    """
    turns = np.diff(np.pad(crop, ((1, 1), (0, 0))).T.view(np.int8), axis=1)  # (w, h + 1)
    ends = [np.argwhere(turns == turn) for turn in (1, -1)]
    return np.stack([(x + corner_yx[1]) * size_hw[0] + y + corner_yx[0] for x, y in (end.T for end in ends)], 1)
