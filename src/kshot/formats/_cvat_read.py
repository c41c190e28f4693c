"""Read CVAT's XML. Files with a document type are refused, so no entity can grow or reach for other files."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from kshot.annotations.checked_json import Images, Item, documents, polygon, size_of
from kshot.annotations.model import LabelledImage, LabelTree, Marks, Part
from kshot.annotations.polygons import ellipse_corners, rle_of
from kshot.errors import SupportError
from kshot.io.paths import unique_stems

_SHAPES = {"mask", "polygon", "ellipse", "box", "points", "polyline"}


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """The labels of a CVAT file; None when there is none. Raises `SupportError`."""
    found = [(path, root) for path in documents(where, ".xml") if (root := _root(path)).tag == "annotations"]
    if not found:
        return None
    if len(found) > 1:
        raise SupportError(f"{where}: several CVAT files ({', '.join(str(path) for path, _ in found)}); keep one")
    path, root = found[0]
    if root.find("track") is not None:
        raise SupportError(f"{path}: tracks of a video; export it as 'CVAT for images 1.1'")
    elements = root.findall("image")
    entries = [_entry(path, element) for element in elements]
    stems = unique_stems([entry.values["name"] for entry in entries])
    if len(stems) < len(entries):
        raise SupportError(f"{path}: two images of one name; keep one of them")
    finder = Images(where, images)
    read = [
        _image(entry, element, finder, stems[entry.values["name"]])
        for entry, element in zip(entries, elements, strict=True)
    ]
    named = [element.text or "" for element in root.iterfind("meta//labels/label/name")]
    used = [element.get("label", "") for element in root.iterfind("image/*") if element.tag in _SHAPES]
    classes = tuple(dict.fromkeys(name for name in [*named, *used] if name))
    return LabelTree(classes, read, objects=True)


def _root(path: Path) -> Element:
    try:
        root: Element | None = parse(path, forbid_dtd=True).getroot()
    except OSError as error:
        raise SupportError(f"{path}: cannot be read ({error.strerror})") from error
    except DefusedXmlException as error:
        raise SupportError(f"{path}: XML with a document type or entities, which is not read; remove them") from error
    except (ParseError, ValueError, LookupError) as error:
        raise SupportError(f"{path}: not valid XML ({error})") from error
    if root is None:
        raise SupportError(f"{path}: not valid XML (no element)")
    return root


def _image(item: Item, element: Element, finder: Images, stem: str) -> LabelledImage:
    name = item.values["name"]
    path = finder.find(name)
    size_hw = size_of(item, ("height", "width"), path)
    read = _Read(size_hw)
    for place, shape in enumerate(element, start=1):
        if shape.tag in _SHAPES:
            read.add(shape.tag, Item(f"{item.called}: {shape.tag} {place}", dict(shape.attrib)))
    return LabelledImage(name, size_hw, tuple(read.groups.values()), path, stem, **read.marks.given())


def _entry(path: Path, element: Element) -> Item:
    """An image element with its name and its size as a number."""
    item = Item(f"{path}: image {element.get('name')!r}", dict(element.attrib))
    item.get("name", str)
    item.values.update({side: _whole(item, item.get(side, str)) for side in ("height", "width")})
    return item


@dataclass
class _Read:
    """The shapes of one image; those of one label and group are one object."""

    size_hw: tuple[int, int]
    marks: Marks = field(default_factory=Marks)
    groups: dict[Any, Part] = field(default_factory=dict)

    def add(self, kind: str, shape: Item) -> None:
        label = shape.get("label", str)
        if not label.strip():
            raise shape.wrong("its label is empty")
        if kind == "box":
            self.marks.box(shape, label, _box(shape))
        elif kind == "points":
            self.marks.points.setdefault(label, []).extend(_points(shape))
        elif kind == "polyline":
            self.marks.lines.setdefault(label, []).append(_points(shape))
        else:
            rle = (
                _mask(shape, self.size_hw) if kind == "mask" else rle_of(_ring(shape, kind, self.size_hw), self.size_hw)
            )
            group = shape.values.get("group_id", "0")
            key = (label, group) if group != "0" else len(self.groups)  # CVAT's group 0 is none
            part = Part(label, rle)
            self.groups[key] = self.groups[key].with_more(part) if key in self.groups else part


def _ring(shape: Item, kind: str, size_hw: tuple[int, int]) -> list[list[float]]:
    if kind == "ellipse":
        sides = [_number(shape, shape.values.get(name)) for name in ("cx", "cy", "rx", "ry")]
        return polygon(shape, _turned(shape, ellipse_corners(*sides), sides[:2]), size_hw)
    return polygon(shape, _points(shape), size_hw)


def _box(shape: Item) -> list[list[float]]:
    x0, y0, x1, y1 = (_number(shape, shape.values.get(name)) for name in ("xtl", "ytl", "xbr", "ybr"))
    if x0 >= x1 or y0 >= y1:
        raise shape.wrong(f"expected a box with xtl < xbr and ytl < ybr, got {x0}, {y0}, {x1}, {y1}")
    return _turned(shape, [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], [(x0 + x1) / 2, (y0 + y1) / 2])


def _turned(shape: Item, corners: list[list[float]], centre: list[float]) -> list[list[float]]:
    """Corners turned about their centre by the shape's rotation, in degrees clockwise."""
    angle = math.radians(_number(shape, shape.values.get("rotation", "0")))
    cos, sin = math.cos(angle), math.sin(angle)
    apart = [(x - centre[0], y - centre[1]) for x, y in corners]
    return [[centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos] for x, y in apart] if angle else corners


def _points(shape: Item) -> list[list[float]]:
    pairs = [pair.split(",") for pair in shape.get("points", str).split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise shape.wrong("expected points as x,y;x,y;...")
    return [[_number(shape, x), _number(shape, y)] for x, y in pairs]


def _mask(shape: Item, size_hw: tuple[int, int]) -> dict[str, Any]:
    left, top = _pixels(shape, "left", 0), _pixels(shape, "top", 0)
    width, height = _pixels(shape, "width"), _pixels(shape, "height")
    if left + width > size_hw[1] or top + height > size_hw[0]:
        raise shape.wrong(f"its mask lies outside its image of {size_hw[1]} x {size_hw[0]} pixels")
    runs = [_whole(shape, run) for run in shape.get("rle", str).split(",")]
    if sum(runs) != width * height:
        raise shape.wrong(f"its run lengths cover {sum(runs)} pixels, but its box has {width * height}")
    mask = np.zeros(size_hw, np.bool_)
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    return Part.of(mask, "").rle


def _pixels(item: Item, name: str, least: int = 1) -> int:
    value = _whole(item, item.get(name, str))
    if not least <= value < 1 << 20:
        raise item.wrong(f"expected {name} in {least}..{1 << 20} pixels, got {value}")
    return value


def _whole(item: Item, text: str) -> int:
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        raise item.wrong(f"expected a whole number of pixels, got {text!r}")
    return int(digits)


def _number(item: Item, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise item.wrong(f"expected a number, got {text!r}")
    return value
