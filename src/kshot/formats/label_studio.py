"""Label Studio: predictions to import, and exports to read. Shapes are brush strokes or polygons.

A brush stroke holds the RGBA values of all pixels as packed runs (the `rle-pack` of thi.ng/umbrella). The bits, from
the highest of the first byte on: 32 the number of values; 5 the bits of a value, less one; 4 times 4 the bits of a
run's length in four sizes, less one. Then runs until all values are there: 1 whether the value repeats, 2 which size,
the length less one, and the value once, or, where it does not repeat, each value. Zeros fill the last byte. The alpha
of a pixel says whether it is marked.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
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
    each_alone,
    filled,
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
from kshot.annotations.rle import Rle
from kshot.annotations.skipped import Skipped
from kshot.errors import SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.formats.overlay import hex_colour_of
from kshot.io.atomic import atomic_path, write_text
from kshot.io.images import SUFFIXES, image_size
from kshot.io.stems import unique_stems
from kshot.ops.polygons import ellipse_corners, polygons, turned

CONFIG = "label_studio.xml"
MODEL_VERSION = "kshot"
_TO = "image"
_ANSWERS = ("annotations", "completions", "predictions")
_SHAPES = {"brush", "polygon", "ellipse", "rectangle", "keypoint"}
_LABELLED = {f"{shape}labels" for shape in _SHAPES}
# What labels each kind of region in the set-up: tag and name.
_CONTROLS = {
    "brushlabels": ("BrushLabels", "label"),
    "polygonlabels": ("PolygonLabels", "label"),
    "rectanglelabels": ("RectangleLabels", "box"),
    "keypointlabels": ("KeyPointLabels", "point"),
}
_POINT_WIDTH = 0.5  # of a key point on the screen, in percent of the image's width
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the names of uploaded files
_SIZES = (3, 4, 8, 16)  # bits of the lengths of a brush stroke's runs, as Label Studio's own tools choose them
_CHANNELS = 4


class LabelStudio(AnnotationReader, AnnotationWriter):
    """One .json for a folder of images."""

    layout = (
        "Label Studio: one exported .json in the folder or in annotations/, with the images beside it or in images/"
    )
    output = "label_studio.json"
    holds = frozenset({"boxes", "points", "scores"})

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/label_studio.json, an image at a time, and the labelling set-up beside it; returns the path.

        Images are named as local files below the storage's root, by their path in the folder of images. Brush strokes
        lose ignored pixels alone; holes of polygons are bridged to their outline. Raises `OutputError`.
        """
        path, kinds = out / self.output, {"polygonlabels" if export.polygons else "brushlabels"}
        with atomic_path(path) as beside, beside.open("w", encoding="utf-8") as file:
            for number, image in enumerate(annotations.images, start=1):
                kinds |= {"rectanglelabels"} if image.prompts.boxes else set()
                kinds |= {"keypointlabels"} if image.prompts.points else set()
                task = json.dumps(_task(number, image, export), allow_nan=False)
                file.write(("[\n" if number == 1 else ",\n") + task)
            file.write("\n]\n" if file.tell() else "[]\n")
        write_text(out / CONFIG, _config(annotations.classes, kinds))
        return path

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """Masks from brush strokes, polygons and ellipses; boxes from rectangles; points from key points.

        Of each task its ground truth, else its first annotation, else its first prediction. A shape without a label
        has that of a region of its id. Turned rectangles become masks; other kinds of regions are counted.
        """
        skipped = Skipped()
        read_here = each_alone(documents(where, ".json"), _export, skipped)
        found = the_only(where, read_here, "exports of Label Studio")
        if found is None:
            return None
        path, data = found
        return annotations_of_tasks(data, ImageFinder(where, images), str(path), skipped)


def annotations_of_tasks(
    data: Sequence[dict[str, Any]], finder: ImageFinder, source: str, skipped: Skipped
) -> AnnotationSet:
    """The labels of tasks as Label Studio exports or sends them; what cannot be read is counted in `skipped`.

    source: what to call them in messages.
    """
    tasks = [Entry(f"{source}: task {task.get('id', place)}", task) for place, task in enumerate(data, start=1)]
    places: dict[str, tuple[Entry, Path | None]] = {}
    for task in tasks:
        with skipped.alone():
            name, file = _place(task, finder)
            if name in places:
                raise SupportError(f"{source}: two tasks with the image of one name, {name!r}; keep one of them")
            places[name] = task, file
    stems, read = unique_stems(places), []
    for name, (task, file) in places.items():
        with skipped.alone():
            read.append(_image(task, file, skipped).build(name, file, stems[name]))
    shown = (
        label
        for image in read
        for label in [*(one.label for one in image.annotations), *image.prompts.boxes, *image.prompts.points]
    )
    return AnnotationSet(tuple(dict.fromkeys(shown)), read, objects=True, skipped=skipped)


def _export(path: Path) -> list[dict[str, Any]] | None:
    """The tasks of an export; None when the file is something else. Raises `SupportError` for JSON-MIN."""
    data = read_json(path)
    if isinstance(data, list) and data and all(_is_minimal(task) for task in data):
        raise SupportError(f"{path}: JSON-MIN of Label Studio, which is not read; export as JSON")
    return data if _is_export(data) else None


def _is_minimal(task: Any) -> bool:
    return isinstance(task, dict) and "data" not in task and {"annotation_id", "annotator"} <= task.keys()


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
    name, path = next(found, (names[0], None))
    return finder.name_of(name, path), path


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


def _image(task: Entry, path: Path | None, skipped: Skipped) -> ImageBuilder:
    regions = list(_labelled(_answer(task), skipped))
    builder = ImageBuilder(_size(task, [region for _, _, region in regions], path))
    for shape, label, region in regions:
        with skipped.alone():
            if (region.whole("original_height"), region.whole("original_width")) != builder.size_hw:
                raise region.wrong("another size of the image than its first region has")
            _add(builder, shape, label, region)
    return builder


def _labelled(regions: list[Entry], skipped: Skipped) -> Iterator[tuple[str, str, Entry]]:
    """Shape, label and entry of each region that is a shape; a set-up with <Labels> has the label in another region."""
    beside: dict[Any, Entry] = {}
    for region in regions:
        if region.values.get("type") == "labels":
            beside.setdefault(str(region.values.get("id")), region)
    shapes = set()
    for region in regions:
        kind = str(region.values.get("type"))
        shape = kind.removesuffix("labels") if kind in _LABELLED else kind
        if shape in _SHAPES:
            with skipped.alone():
                shapes.add(str(region.values.get("id")))
                named = region if kind in _LABELLED else beside.get(str(region.values.get("id")))
                if named is None:
                    skipped.leave_out(f"{shape} without a label", region.called)
                else:
                    yield shape, _label(named, kind if kind in _LABELLED else "labels"), region
        elif kind != "labels":
            skipped.leave_out(kind, region.called)
    for name, region in beside.items():
        if name not in shapes:
            skipped.leave_out("label without a shape", region.called)


def _label(region: Entry, key: str) -> str:
    labels = region.get("value", dict).get(key)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str) or not labels[0].strip():
        raise region.wrong(f"expected one label in {key}, got {labels!r:.80}")
    return labels[0]


def _size(task: Entry, regions: list[Entry], path: Path | None) -> tuple[int, int]:
    if not regions:
        if path is None:
            raise task.wrong("no such image beside the export or in images/, and no region that says its size")
        return image_size(path)
    return size_of(regions[0], ("original_height", "original_width"), path)


def _add(builder: ImageBuilder, shape: str, label: str, region: Entry) -> None:
    size_hw, value = builder.size_hw, Entry(region.called, region.get("value", dict))
    if region.values.get("image_rotation"):
        raise region.wrong("marked on a turned image, which is not read; turn the image back in Label Studio")
    if shape == "rectangle":
        builder.add_rectangle(region, label, _box(value, size_hw))
    elif shape == "keypoint":
        builder.prompts.add_points(label, _pixels([[_at(value, "x"), _at(value, "y")]], size_hw))
    else:
        builder.add(Annotation(label, _outline(shape, value, size_hw), score_of(region)))


def _outline(shape: str, value: Entry, size_hw: tuple[int, int]) -> Rle:
    if shape == "brush":
        return _brush(value, size_hw)
    if shape == "ellipse":
        cx, cy, rx, ry = (_at(value, key) for key in ("x", "y", "radiusX", "radiusY"))
        centre, radii = _pixels([[cx, cy], [rx, ry]], size_hw)
        ring = turned(ellipse_corners(*centre, *radii), centre, _rotation(value))
    else:
        ring = _pixels(points_of(value, value.get("points", list)), size_hw)
    return filled(value, polygon(value, ring, size_hw), size_hw)


def _rotation(value: Entry) -> float:
    """In degrees, clockwise, in pixels: of an ellipse about its centre, of a rectangle about its upper left corner."""
    return 0.0 if value.values.get("rotation") is None else _at(value, "rotation")


def _brush(value: Entry, size_hw: tuple[int, int]) -> Rle:
    packed = value.values.get("rle")
    if not isinstance(packed, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in packed):
        raise value.wrong("expected a brush's rle as a list of bytes; export as JSON, not as PNG or NumPy")
    try:
        return rle.encode_at(decode_brush(bytes(packed), size_hw), 0, 0, size_hw)
    except ValueError as error:
        raise value.wrong(f"its rle is damaged: {error}") from error


def _box(value: Entry, size_hw: tuple[int, int]) -> list[list[float]]:
    x, y, width, height = (_at(value, key) for key in ("x", "y", "width", "height"))
    corners = _pixels([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], size_hw)
    return turned(corners, corners[0], _rotation(value))


def _pixels(points: list[list[float]], size_hw: tuple[int, int]) -> list[list[float]]:
    """Percents of the image's width and height as pixels."""
    height, width = size_hw
    return [[x * width / 100, y * height / 100] for x, y in points]


def _at(value: Entry, key: str) -> float:
    return numbers(value, [value.values.get(key)], key)[0]


def _task(number: int, image: LabelledImage, export: Export) -> dict[str, Any]:
    prediction = prediction_of(number, image, export)
    return {"data": {"image": f"/data/local-files/?d={_quoted(image.name)}"}, "predictions": [prediction]}


def prediction_of(number: int, image: LabelledImage, export: Export) -> dict[str, Any]:
    """What Label Studio takes as a prediction of a task; `number` makes the names of its regions unique."""
    kept = [one for one in image.annotations if not one.ignore]
    result = [region for place, one in enumerate(kept, 1) for region in _regions(f"{number}-{place}", one, export)]
    result += _marks(f"{number}-p", image)
    for region in result:
        region |= {"from_name": _CONTROLS[region["type"]][1], "to_name": _TO, "image_rotation": 0}
        region |= {"original_width": image.size_hw[1], "original_height": image.size_hw[0]}
    scores = [one.score for one in kept if one.score is not None]
    prediction: dict[str, Any] = {"model_version": MODEL_VERSION, "result": result}
    if scores:
        prediction["score"] = round(sum(scores) / len(scores), 6)
    return prediction


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


def _marks(name: str, image: LabelledImage) -> Iterator[dict[str, Any]]:
    """Regions of boxes and points."""
    height, width = image.size_hw
    found: list[tuple[str, str, dict[str, Any]]] = []
    for label, boxes in image.prompts.boxes.items():
        for x0, y0, x1, y1 in boxes:
            place = {"x": x0 / width, "y": y0 / height, "width": (x1 - x0) / width, "height": (y1 - y0) / height}
            found.append(("rectanglelabels", label, {key: 100 * part for key, part in place.items()} | {"rotation": 0}))
    for label, points in image.prompts.points.items():
        for x, y in points:
            place = {"x": 100 * x / width, "y": 100 * y / height, "width": _POINT_WIDTH}
            found.append(("keypointlabels", label, place))
    for index, (kind, label, value) in enumerate(found):
        rounded = {key: round(part, 6) for key, part in value.items()}
        yield {"id": f"{name}{index}", "type": kind, "value": rounded | {kind: [label]}}


def _quoted(name: str) -> str:
    return quote(name, errors="surrogateescape")


def _config(classes: Sequence[str], kinds: Iterable[str]) -> str:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": _TO, "value": "$image", "zoom": "true"})
    for kind in sorted(kinds):
        tag, control = _CONTROLS[kind]
        labels = ElementTree.SubElement(view, tag, {"name": control, "toName": _TO})
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
    marked = np.zeros(height * width, np.bool_)
    at = 0
    while at < total:
        repeats = bits.read(1)
        end = at + 1 + bits.read(sizes[bits.read(2)])
        if end > total:
            raise ValueError("a run goes beyond the image")
        # Of each pixel the fourth value alone, its alpha, is kept: all values would take 16 times the memory.
        pixels = slice(at // _CHANNELS, end // _CHANNELS)
        if repeats:
            marked[pixels] = bits.read(word) > 127
        else:
            values = [bits.read(word) for _ in range(end - at)]
            marked[pixels] = [value > 127 for value in values[-(at + 1) % _CHANNELS :: _CHANNELS]]
        at = end
    return marked.reshape(height, width)


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
