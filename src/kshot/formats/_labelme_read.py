"""Read labelme's JSON, which people also write with scripts of their own: every value is checked."""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.checked_json import Images, Item, is_file, points_of, polygon, read_json, score_of, size_of
from kshot.annotations.model import LabelledImage, LabelTree, Lazy, Marks, Part
from kshot.annotations.polygons import ellipse_corners, rle_of
from kshot.errors import InputError
from kshot.io.images import image_size, read_mask
from kshot.io.paths import unique_stems, walk

_KEYS = {"shapes", "imagePath"}
_OUTLINES = {"polygon", "oriented_rectangle", "mask", "circle"}
_IGNORED, _BACKGROUND = "__ignore__", "_background_"


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """The labels of a folder, or of one file; None without a file of labelme. Raises `SupportError`."""
    paths = [where] if where.is_file() else sorted(walk(where, _is_json))
    files = [path for path in paths if _is_json(path) and _is_labelme(read_json(path))]
    if not files:
        return None
    root = where.parent if where.is_file() else where
    stems = unique_stems([path.relative_to(root).as_posix() for path in files])
    finder = Images(root, images)
    labels: dict[str, None] = {}
    for path in files:
        for item in _shapes(path, read_json(path)):
            labels.setdefault(_label(item))
    classes = tuple(name for name in labels if name not in (_IGNORED, _BACKGROUND))

    def read(path: Path) -> LabelledImage:
        return _image(path, root, stems[path.relative_to(root).as_posix()], finder)

    return LabelTree(classes, Lazy(files, read), objects=True)


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json" and path.name[0] != "."


def _is_labelme(data: Any) -> bool:
    return isinstance(data, dict) and data.keys() >= _KEYS


def _image(path: Path, root: Path, stem: str, finder: Images) -> LabelledImage:
    item = Item(str(path), read_json(path))
    given = item.get("imagePath", str).replace("\\", "/")
    beside = path.parent / given
    found = beside if is_file(beside) else finder.find(given)
    size_hw = _size(item, found)
    name = PurePosixPath(path.relative_to(root).as_posix()).with_suffix(PurePosixPath(given).suffix or ".jpg")
    read = _Read(size_hw)
    for shape in _shapes(path, item.values):
        if _label(shape) != _BACKGROUND:
            read.add(shape)
    return LabelledImage(name.as_posix(), size_hw, read.parts(), found, stem, **read.marks.given())


def _size(item: Item, found: Path | None) -> tuple[int, int]:
    if item.values.get("imageHeight") is None or item.values.get("imageWidth") is None:
        if found is None:
            raise item.wrong("it says neither the image's size nor where the image is; put the image beside it")
        return image_size(found)
    return size_of(item, ("imageHeight", "imageWidth"), found)


@dataclass
class _Read:
    """The shapes of one image; those of one label and group are one object."""

    size_hw: tuple[int, int]
    marks: Marks = field(default_factory=Marks)
    groups: dict[Any, Part] = field(default_factory=dict)

    def parts(self) -> tuple[Part, ...]:
        return tuple(self.groups.values())

    def add(self, shape: Item) -> None:
        kind, label = str(shape.values.get("shape_type") or "polygon"), _label(shape)
        if kind in _OUTLINES:
            self._outline(shape, kind, label)
            return
        points = points_of(shape, shape.get("points", list))
        if kind == "rectangle":
            self.marks.box(shape, label, _corners(shape, points, 2))
        elif kind in {"point", "points"}:
            self.marks.points.setdefault(label, []).extend(_corners(shape, points, None))
        elif kind in {"line", "linestrip"}:
            self.marks.lines.setdefault(label, []).append(_corners(shape, points, None))
        else:
            raise shape.wrong(
                f"an unknown shape_type {kind!r}; there are polygon, mask, rectangle, circle, point, line"
            )

    def _outline(self, shape: Item, kind: str, label: str) -> None:
        rle = _mask(shape, self.size_hw) if kind == "mask" else rle_of(_ring(shape, kind, self.size_hw), self.size_hw)
        group = shape.values.get("group_id")
        if group is not None and not isinstance(group, int | float | str):
            raise shape.wrong(f"expected group_id as a number, got {group!r}")
        part = Part(label, rle, score_of(shape), ignore=label == _IGNORED)
        key = (label, group) if group is not None else len(self.groups)
        self.groups[key] = self.groups[key].with_more(part) if key in self.groups else part


def _shapes(path: Path, data: Mapping[str, Any]) -> list[Item]:
    values = data["shapes"]
    whole = Item(str(path), dict(data))
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise whole.wrong("expected shapes as a list of objects")
    return [Item(f"{path}: shape {place}", value) for place, value in enumerate(values, start=1)]


def _label(shape: Item) -> str:
    label: str = shape.get("label", str)
    if not label.strip():
        raise shape.wrong("its label is empty")
    return label


def _ring(shape: Item, kind: str, size_hw: tuple[int, int]) -> list[list[float]]:
    points = shape.get("points", list)
    if kind == "circle":
        (x, y), (rim_x, rim_y) = _corners(shape, points_of(shape, points), 2)
        radius = math.hypot(rim_x - x, rim_y - y)
        points = ellipse_corners(x, y, radius, radius)
    return polygon(shape, points, size_hw)


def _corners(shape: Item, points: list[list[float]], count: int | None) -> list[list[float]]:
    if not points or (count and len(points) != count):
        raise shape.wrong(f"expected {count or 'some'} points, got {len(points)}")
    return points


def _mask(shape: Item, size_hw: tuple[int, int]) -> dict[str, Any]:
    """A shape of kind mask: a PNG of the box between two pixels, both within it."""
    (x0, y0), (x1, y1) = _corners(shape, points_of(shape, shape.get("points", list)), 2)
    left, top, right, bottom = (int(side) for side in (x0, y0, x1, y1))
    drawn = _decoded(shape, size_hw)
    if drawn.shape != (bottom - top + 1, right - left + 1):
        raise shape.wrong(f"its mask is {drawn.shape[1]} x {drawn.shape[0]} pixels and does not fit its points")
    if left < 0 or top < 0 or right >= size_hw[1] or bottom >= size_hw[0]:
        raise shape.wrong(f"its mask lies outside its image of {size_hw[1]} x {size_hw[0]} pixels")
    mask = np.zeros(size_hw, np.bool_)
    mask[top : bottom + 1, left : right + 1] = drawn
    return Part.of(mask, "").rle


def _decoded(shape: Item, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    text = shape.get("mask", str)
    try:
        mask = read_mask(base64.b64decode(text, validate=True), max_pixels=size_hw[0] * size_hw[1])
    except (ValueError, InputError) as error:
        raise shape.wrong(f"its mask is no PNG as base64 ({error})") from error
    return mask > 0
