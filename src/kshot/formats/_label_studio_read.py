"""Read what Label Studio exports as JSON: every value is checked."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kshot.annotations.checked_json import (
    Images,
    Item,
    documents,
    numbers,
    points_of,
    polygon,
    read_json,
    score_of,
    size_of,
)
from kshot.annotations.model import LabelledImage, LabelTree, Marks, Part
from kshot.annotations.polygons import ellipse_corners, rle_of
from kshot.errors import SupportError
from kshot.formats._brush import decode
from kshot.io.images import SUFFIXES, image_size
from kshot.io.paths import unique_stems

_ANSWERS = ("annotations", "completions", "predictions")
_KINDS = {"brushlabels", "polygonlabels", "ellipselabels", "rectanglelabels", "keypointlabels"}
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the names of uploaded files


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """The labels of an export; None when there is none. Raises `SupportError`."""
    found = [(path, data) for path in documents(where, ".json") if _is_export(data := read_json(path))]
    if not found:
        return None
    if len(found) > 1:
        listed = ", ".join(str(path) for path, _ in found)
        raise SupportError(f"{where}: several exports of Label Studio ({listed}); keep one")
    path, data = found[0]
    tasks = [Item(f"{path}: task {task.get('id', place)}", task) for place, task in enumerate(data, start=1)]
    finder = Images(where, images)
    places = [_place(task, finder) for task in tasks]
    stems = unique_stems([name for name, _ in places])
    if len(stems) < len(tasks):
        raise SupportError(f"{path}: two tasks with the image of one name; keep one of them")
    read = [_image(task, name, file, stems[name]) for task, (name, file) in zip(tasks, places, strict=True)]
    shown = (label for image in read for label in [*(part.label for part in image.parts), *image.boxes, *image.points])
    return LabelTree(tuple(dict.fromkeys(shown)), read, objects=True)


def _is_export(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in data)
        and any(key in task for task in data for key in _ANSWERS)
    )


def _place(task: Item, finder: Images) -> tuple[str, Path | None]:
    """The image's name and path: as the address has it, or without what Label Studio put before it."""
    values = [value for value in task.values["data"].values() if isinstance(value, str)]
    names = [name for value in values for name in _names(value)]
    if not names:
        raise task.wrong("no address of an image in its data")
    for name in names:
        path = finder.find(name)
        if path is not None:
            return name, path
    return names[0], None


def _names(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
        given = parse_qs(parts.query).get("d", [parts.path])[0]
    except ValueError:
        return
    name = unquote(given).replace("\\", "/").lstrip("/")
    pure = PurePosixPath(name)
    if pure.suffix.lower() not in SUFFIXES or ".." in pure.parts or "\0" in name:
        return
    yield name
    yield _UPLOADED.sub("", pure.name)


def _answer(task: Item) -> list[Item]:
    """The regions of the one answer that counts."""
    for key in _ANSWERS:
        answers = task.values.get(key) or []
        if not isinstance(answers, list):
            raise task.wrong(f"expected {key} as a list")
        kept = [one for one in answers if isinstance(one, dict) and not one.get("was_cancelled")]
        if kept:
            chosen = next((one for one in kept if one.get("ground_truth")), kept[0])
            result = chosen.get("result", [])
            if not isinstance(result, list) or not all(isinstance(region, dict) for region in result):
                raise task.wrong(f"expected the result of its {key} as a list of regions")
            return [Item(f"{task.called}: region {place}", region) for place, region in enumerate(result, start=1)]
    return []


def _image(task: Item, name: str, path: Path | None, stem: str) -> LabelledImage:
    regions = [region for region in _answer(task) if region.values.get("type") in _KINDS]
    size_hw = _size(task, regions, path)
    read = _Read(size_hw)
    for region in regions:
        if (region.whole("original_height"), region.whole("original_width")) != size_hw:
            raise region.wrong("another size of the image than its first region has")
        read.add(region)
    return LabelledImage(name, size_hw, tuple(read.parts), path, stem, read.marks.boxes, read.marks.points)


def _size(task: Item, regions: list[Item], path: Path | None) -> tuple[int, int]:
    if not regions:
        if path is None:
            raise task.wrong("no such image beside the export or in images/, and no region that says its size")
        return image_size(path)
    return size_of(regions[0], ("original_height", "original_width"), path)


@dataclass
class _Read:
    """The regions of one image."""

    size_hw: tuple[int, int]
    parts: list[Part] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)

    def add(self, region: Item) -> None:
        kind = region.values["type"]
        value = Item(region.called, region.get("value", dict))
        if region.values.get("image_rotation"):
            raise region.wrong("marked on a turned image, which is not read; turn the image back in Label Studio")
        labels = value.values.get(kind)
        if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str) or not labels[0].strip():
            raise region.wrong(f"expected one label in {kind}, got {labels!r:.80}")
        if kind == "rectanglelabels":
            self.marks.box(region, labels[0], self._box(value))
        elif kind == "keypointlabels":
            self.marks.points.setdefault(labels[0], []).append(
                self._pixels(value, [[_at(value, "x"), _at(value, "y")]])[0]
            )
        else:
            self.parts.append(Part(labels[0], self._shape(kind, value), score_of(region)))

    def _shape(self, kind: str, value: Item) -> dict[str, Any]:
        if kind == "brushlabels":
            return self._brush(value)
        if kind == "ellipselabels":
            ring = ellipse_corners(*(_at(value, key) for key in ("x", "y", "radiusX", "radiusY")))
        else:
            ring = points_of(value, value.get("points", list))
        return rle_of(polygon(value, self._pixels(value, ring), self.size_hw), self.size_hw)

    def _brush(self, value: Item) -> dict[str, Any]:
        packed = value.values.get("rle")
        if not isinstance(packed, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in packed):
            raise value.wrong("expected a brush's rle as a list of bytes; export as JSON, not as PNG or NumPy")
        try:
            return Part.of(decode(bytes(packed), self.size_hw), "").rle
        except ValueError as error:
            raise value.wrong(f"its rle is damaged: {error}") from error

    def _box(self, value: Item) -> list[list[float]]:
        if value.values.get("rotation"):
            raise value.wrong("a turned rectangle, which is not read; mark a polygon instead")
        x, y, width, height = (_at(value, key) for key in ("x", "y", "width", "height"))
        return self._pixels(value, [[x, y], [x + width, y + height]])

    def _pixels(self, value: Item, points: list[list[float]]) -> list[list[float]]:
        """Shares of the image in percent as pixels."""
        height, width = self.size_hw
        return [[x * width / 100, y * height / 100] for x, y in points]


def _at(value: Item, key: str) -> float:
    return numbers(value, [value.values.get(key)], key)[0]
