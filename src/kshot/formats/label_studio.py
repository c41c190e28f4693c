"""Label Studio: predictions to import, and exports to read. Shapes are brush strokes or polygons.

A brush stroke holds the RGBA values of all pixels as packed runs (the `rle-pack` of thi.ng/umbrella). The bits, from
the highest of the first byte on: 32 the number of values; 5 the bits of a value, less one; 4 times 4 the bits of a
run's length in four sizes, less one. Then runs until all values are there: 1 whether the value repeats, 2 which size,
the length less one, and the value once, or, where it does not repeat, each value. Zeros fill the last byte. The alpha
of a pixel says whether it is marked.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from kshot.annotations import rle
from kshot.annotations.checked_json import (
    Entry,
    documents,
    numbers,
    points_of,
    polygon,
    read_json,
    score_of,
    size_of,
    the_only,
)
from kshot.annotations.model import DEFAULT_EXPORT, Annotation, AnnotationSet, Export, ImageBuilder, LabelledImage
from kshot.annotations.pairing import ImageFinder
from kshot.annotations.polygons import ellipse_corners, polygons
from kshot.annotations.rle import Rle
from kshot.errors import SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.formats.overlay import hex_colour_of
from kshot.io.atomic import atomic_path, write_text
from kshot.io.images import SUFFIXES, image_size
from kshot.io.stems import unique_stems

CONFIG = "label_studio.xml"
MODEL_VERSION = "kshot"
_FROM, _TO = "label", "image"
_ANSWERS = ("annotations", "completions", "predictions")
_KINDS = {"brushlabels", "polygonlabels", "ellipselabels", "rectanglelabels", "keypointlabels"}
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the names of uploaded files
_SIZES = (3, 4, 8, 16)  # bits of the lengths of a brush stroke's runs, as Label Studio's own tools choose them
_CHANNELS = 4


class LabelStudio(AnnotationReader, AnnotationWriter):
    """One .json for a folder of images."""

    layout = (
        "Label Studio: one exported .json in the folder or in annotations/, with the images beside it or in images/"
    )
    output = "label_studio.json"

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/label_studio.json, an image at a time, and the labelling set-up beside it; returns the path.

        Images are named as local files below the storage's root, by their path in the folder of images. Brush strokes
        lose ignored pixels alone; holes of polygons are bridged to their outline. Raises `OutputError`.
        """
        path = out / self.output
        with atomic_path(path) as beside, beside.open("w", encoding="utf-8") as file:
            for number, image in enumerate(annotations.images, start=1):
                task = json.dumps(_task(number, image, export), allow_nan=False)
                file.write(("[\n" if number == 1 else ",\n") + task)
            file.write("\n]\n" if file.tell() else "[]\n")
        write_text(out / CONFIG, _config(annotations.classes, "PolygonLabels" if export.polygons else "BrushLabels"))
        return path

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """Masks from brush strokes, polygons and ellipses; boxes from rectangles; points from key points.

        Of each task its ground truth, else its first annotation, else its first prediction.
        """
        exports = ((path, data) for path in documents(where, ".json") if _is_export(data := read_json(path)))
        found = the_only(where, exports, "exports of Label Studio")
        if found is None:
            return None
        path, data = found
        tasks = [Entry(f"{path}: task {task.get('id', place)}", task) for place, task in enumerate(data, start=1)]
        finder = ImageFinder(where, images)
        places = [_place(task, finder) for task in tasks]
        stems = unique_stems([name for name, _ in places])
        if len(stems) < len(tasks):
            raise SupportError(f"{path}: two tasks with the image of one name; keep one of them")
        read = [_image(task, name, file, stems[name]) for task, (name, file) in zip(tasks, places, strict=True)]
        shown = (
            label
            for image in read
            for label in [*(one.label for one in image.annotations), *image.prompts.boxes, *image.prompts.points]
        )
        return AnnotationSet(tuple(dict.fromkeys(shown)), read, objects=True)


def _is_export(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in data)
        and any(key in task for task in data for key in _ANSWERS)
    )


def _place(task: Entry, finder: ImageFinder) -> tuple[str, Path | None]:
    """The image's name and path: as the address has it, or without what Label Studio put before it."""
    values = [value for value in task.values["data"].values() if isinstance(value, str)]
    names = [name for value in values for name in _names(value)]
    if not names:
        raise task.wrong("no address of an image in its data")
    found = ((name, path) for name in names if (path := finder.find(name)))
    return next(found, (names[0], None))


def _names(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
        # A query is decoded as it is parsed.
        given = parse_qs(parts.query).get("d") or [unquote(parts.path)]
    except ValueError:
        return
    name = given[0].replace("\\", "/").lstrip("/")
    pure = PurePosixPath(name)
    if pure.suffix.lower() not in SUFFIXES or ".." in pure.parts or "\0" in name:
        return
    yield name
    yield _UPLOADED.sub("", pure.name)


def _answer(task: Entry) -> list[Entry]:
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
            return [Entry(f"{task.called}: region {place}", region) for place, region in enumerate(result, start=1)]
    return []


def _image(task: Entry, name: str, path: Path | None, stem: str) -> LabelledImage:
    regions = [region for region in _answer(task) if region.values.get("type") in _KINDS]
    builder = ImageBuilder(_size(task, regions, path))
    for region in regions:
        if (region.whole("original_height"), region.whole("original_width")) != builder.size_hw:
            raise region.wrong("another size of the image than its first region has")
        _add(builder, region)
    return builder.build(name, path, stem)


def _size(task: Entry, regions: list[Entry], path: Path | None) -> tuple[int, int]:
    if not regions:
        if path is None:
            raise task.wrong("no such image beside the export or in images/, and no region that says its size")
        return image_size(path)
    return size_of(regions[0], ("original_height", "original_width"), path)


def _add(builder: ImageBuilder, region: Entry) -> None:
    kind, size_hw = region.values["type"], builder.size_hw
    value = Entry(region.called, region.get("value", dict))
    if region.values.get("image_rotation"):
        raise region.wrong("marked on a turned image, which is not read; turn the image back in Label Studio")
    labels = value.values.get(kind)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str) or not labels[0].strip():
        raise region.wrong(f"expected one label in {kind}, got {labels!r:.80}")
    if kind == "rectanglelabels":
        builder.prompts.add_box(region, labels[0], _box(value, size_hw))
    elif kind == "keypointlabels":
        builder.prompts.add_points(labels[0], _pixels([[_at(value, "x"), _at(value, "y")]], size_hw))
    else:
        builder.add(Annotation(labels[0], _outline(kind, value, size_hw), score_of(region)))


def _outline(kind: str, value: Entry, size_hw: tuple[int, int]) -> Rle:
    if kind == "brushlabels":
        return _brush(value, size_hw)
    if kind == "ellipselabels":
        ring = ellipse_corners(*(_at(value, key) for key in ("x", "y", "radiusX", "radiusY")))
    else:
        ring = points_of(value, value.get("points", list))
    return rle.encode_polygon(polygon(value, _pixels(ring, size_hw), size_hw), size_hw)


def _brush(value: Entry, size_hw: tuple[int, int]) -> Rle:
    packed = value.values.get("rle")
    if not isinstance(packed, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in packed):
        raise value.wrong("expected a brush's rle as a list of bytes; export as JSON, not as PNG or NumPy")
    try:
        return rle.encode(decode_brush(bytes(packed), size_hw))
    except ValueError as error:
        raise value.wrong(f"its rle is damaged: {error}") from error


def _box(value: Entry, size_hw: tuple[int, int]) -> list[list[float]]:
    if value.values.get("rotation"):
        raise value.wrong("a turned rectangle, which is not read; mark a polygon instead")
    x, y, width, height = (_at(value, key) for key in ("x", "y", "width", "height"))
    return _pixels([[x, y], [x + width, y + height]], size_hw)


def _pixels(points: list[list[float]], size_hw: tuple[int, int]) -> list[list[float]]:
    """Percents of the image's width and height as pixels."""
    height, width = size_hw
    return [[x * width / 100, y * height / 100] for x, y in points]


def _at(value: Entry, key: str) -> float:
    return numbers(value, [value.values.get(key)], key)[0]


def _task(number: int, image: LabelledImage, export: Export) -> dict[str, Any]:
    kept = [one for one in image.annotations if not one.ignore]
    result = [region for place, one in enumerate(kept, 1) for region in _regions(f"{number}-{place}", one, export)]
    for region in result:
        region |= {"from_name": _FROM, "to_name": _TO, "image_rotation": 0}
        region |= {"original_width": image.size_hw[1], "original_height": image.size_hw[0]}
    scores = [one.score for one in kept if one.score is not None]
    prediction: dict[str, Any] = {"model_version": MODEL_VERSION, "result": result}
    if scores:
        prediction["score"] = round(sum(scores) / len(scores), 6)
    return {"data": {"image": f"/data/local-files/?d={_quoted(image.name)}"}, "predictions": [prediction]}


def _regions(name: str, annotation: Annotation, export: Export) -> Iterator[dict[str, Any]]:
    about: dict[str, Any] = {} if annotation.score is None else {"score": round(annotation.score, 6)}
    if not export.polygons:
        brush = {"format": "rle", "rle": encode_brush(annotation.mask), "brushlabels": [annotation.label]}
        yield {"id": name, "type": "brushlabels", "value": brush} | about
        return
    height, width = annotation.rle["size"]
    for index, corners in enumerate(polygons(annotation.mask, export.tolerance)):
        points = [[round(100 * x / width, 6), round(100 * y / height, 6)] for x, y in corners.tolist()]
        value: dict[str, Any] = {"points": points, "closed": True, "polygonlabels": [annotation.label]}
        yield {"id": f"{name}-{index}", "type": "polygonlabels", "value": value} | about


def _quoted(name: str) -> str:
    return quote(name, errors="surrogateescape")


def _config(classes: Sequence[str], kind: str) -> str:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": _TO, "value": "$image", "zoom": "true"})
    labels = ElementTree.SubElement(view, kind, {"name": _FROM, "toName": _TO})
    for index, name in enumerate(classes, start=1):
        ElementTree.SubElement(labels, "Label", {"value": name, "background": hex_colour_of(index)})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """The bytes of a mask (h, w); marked pixels are 255 in all four channels, as in Label Studio's `mask2rle`."""
    counts = (rle.row_counts(mask) * _CHANNELS).tolist()
    head = f"{mask.size * _CHANNELS:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in _SIZES)
    bits = head + "".join(_run(count, marked=index % 2 == 1) for index, count in enumerate(counts))
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def decode_brush(data: bytes, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (h, w) of packed bytes: where alpha is above half. Raises `ValueError` when they are damaged."""
    height, width = size_hw
    total, bits = height * width * _CHANNELS, _Bits(data)
    count, word = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(_CHANNELS)]
    if count != total:
        raise ValueError(f"it holds {count} values, but an image of {width} x {height} pixels has {total}")
    values = np.zeros(total, np.uint32)
    at = 0
    while at < total:
        repeats = bits.read(1)
        end = at + 1 + bits.read(sizes[bits.read(2)])
        if end > total:
            raise ValueError("a run goes beyond the image")
        values[at:end] = bits.read(word) if repeats else [bits.read(word) for _ in range(end - at)]
        at = end
    marked: NDArray[np.bool_] = (values[3::_CHANNELS] > 127).reshape(height, width)
    return marked


def _run(length: int, *, marked: bool) -> str:
    """The bits of a run; one that is too long for the largest size takes several."""
    value, longest = "1" * 8 if marked else "0" * 8, 1 << _SIZES[-1]
    whole, rest = divmod(length, longest)
    bits = f"111{longest - 1:016b}{value}" * whole
    if rest:
        index = next(i for i, size in enumerate(_SIZES) if rest <= 1 << size)
        bits += f"1{index:02b}{rest - 1:0{_SIZES[index]}b}{value}"
    return bits


class _Bits:
    def __init__(self, data: bytes):
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def read(self, size: int) -> int:
        part = self.text[self.at : self.at + size]
        if len(part) < size:
            raise ValueError("it ends within a run")
        self.at += size
        return int(part, 2)


FORMAT = LabelStudio()
