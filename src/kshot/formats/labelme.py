"""labelme: one JSON per image, as labelme 5 and 6 read and write it.

People write such files with scripts of their own too: every value is checked.
"""

import base64
import io
import math
from collections.abc import Iterator
from json import dumps
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.annotations import rle
from kshot.annotations.checked_json import Entry, each_alone, filled, points_of, polygon, read_json, score_of, size_of
from kshot.annotations.model import (
    DEFAULT_EXPORT,
    Annotation,
    AnnotationSet,
    Export,
    ImageBuilder,
    LabelledImage,
    LazyImages,
    Prompts,
)
from kshot.annotations.pairing import ImageFinder
from kshot.annotations.rle import Rle
from kshot.annotations.skipped import Skipped
from kshot.errors import InputError
from kshot.formats.base import BESIDE_MASKS, AnnotationReader, AnnotationWriter, refuse_names
from kshot.io.atomic import write_text
from kshot.io.images import image_size, read_mask
from kshot.io.names import below
from kshot.io.paths import walk
from kshot.io.stems import unique_stems
from kshot.ops.polygons import ellipse_corners, is_upright, polygons

_VERSION = "5.5.0"  # labelme warns about files of a newer version than its own
_KEYS = {"shapes", "imagePath"}
# `rotation` is what relatives of labelme call an oriented_rectangle.
_OUTLINES = {"polygon", "oriented_rectangle", "rotation", "mask", "circle"}
_READ = _OUTLINES | {"rectangle", "point", "points", "line", "linestrip"}
_IGNORED, _BACKGROUND = "__ignore__", "_background_"  # as labelme's own tools call them


class Labelme(AnnotationReader, AnnotationWriter):
    """A .json beside each image."""

    layout = "labelme: x.json of labelme beside each image"
    output = "labelme"
    holds = frozenset(BESIDE_MASKS)

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/labelme/<stem>.json beside its image, since labelme lists a folder's images. Returns the folder.

        Masks lose nothing. Polygons have no holes in labelme: a hole is bridged to its outline by a cut of no width.
        Ignored pixels are called __ignore__. Raises `OutputError`, also for a class of that name or of
        labelme's background.
        """
        folder = out / self.output
        refuse_names(folder, {"", _IGNORED, _BACKGROUND}.intersection(annotations.classes))
        for image in annotations.images:
            objects = enumerate(image.stacked, start=1)
            data: dict[str, Any] = {
                "version": _VERSION,
                "flags": {},
                "shapes": [
                    *(shape for group, one in objects for shape in _written(one, group, export)),
                    *_marks(image.prompts),
                ],
                "imagePath": image.place_in(folder, export) or PurePosixPath(image.name).name,
                "imageData": None,
                "imageHeight": image.size_hw[0],
                "imageWidth": image.size_hw[1],
            }
            write_text(below(out, folder / f"{image.stem}.json"), dumps(data, indent=2, allow_nan=False) + "\n")
        return folder

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """Masks from polygons, masks, circles, turned rectangles; boxes from rectangles; points; scribbles from lines.

        Of all files in a folder and below, or of one; shapes of one label and group are one object. As in labelme's own
        tools a later shape lies on the earlier ones, and `_background_` takes their pixels. An image that lies in its
        file is used where there is no other. Kinds of shapes that are not read are counted.
        """
        paths = [where] if where.is_file() else sorted(walk(where, _is_json))
        skipped = Skipped()
        files = [path for path, _ in each_alone([path for path in paths if _is_json(path)], _is_labelme, skipped)]
        if not files:
            return None
        root = where.parent if where.is_file() else where
        stems = unique_stems([path.relative_to(root).as_posix() for path in files])
        finder = ImageFinder(root, images)
        labels = dict[str, None]()
        for path in files:
            with skipped.alone():
                for shape in _shapes(Entry(str(path), read_json(path))):
                    with skipped.alone():
                        label = _label(shape)
                        if _kind(shape) in _READ:
                            labels[label] = None
                        else:
                            skipped.leave_out(f"an unknown shape_type {_kind(shape)!r}", shape.called)
        classes = tuple(name for name in labels if name not in (_IGNORED, _BACKGROUND))

        def read(path: Path) -> LabelledImage:
            return _image(path, root, stems[path.relative_to(root).as_posix()], finder, skipped)

        return AnnotationSet(classes, LazyImages(files, read, skipped), objects=True, skipped=skipped)


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json" and path.name[0] != "."


def _is_labelme(path: Path) -> bool | None:
    """True for a file of labelme, None for another JSON. Raises `SupportError`."""
    data = read_json(path)
    return (isinstance(data, dict) and data.keys() >= _KEYS) or None


def _image(path: Path, root: Path, stem: str, finder: ImageFinder, skipped: Skipped) -> LabelledImage:
    entry = Entry(str(path), read_json(path))
    given = entry.get("imagePath", str).replace("\\", "/")
    if "\0" in given:
        raise entry.wrong(f"expected imagePath as the name of an image, got {given!r}")
    found = finder.find(given, first=path.parent)
    data = None if found else _embedded(entry)
    builder = ImageBuilder(_size(entry, found or data), data=data)
    for order, shape in enumerate(_shapes(entry)):
        with skipped.alone():
            _add(builder, shape, order)
    name = PurePosixPath(path.relative_to(root).as_posix()).with_suffix(PurePosixPath(given).suffix or ".jpg")
    return builder.build(name.as_posix(), found, stem)


def _embedded(entry: Entry) -> bytes | None:
    """The image that lies in the file, as labelme saves it unless told otherwise."""
    text = entry.values.get("imageData")
    if not isinstance(text, str) or not text:
        return None
    try:
        return base64.b64decode(text.partition(";base64,")[2] if text.startswith("data:") else text, validate=True)
    except ValueError as error:
        raise entry.wrong(f"its imageData is no image as base64 ({error})") from error


def _size(entry: Entry, found: Path | bytes | None) -> tuple[int, int]:
    if entry.values.get("imageHeight") is None or entry.values.get("imageWidth") is None:
        if found is None:
            raise entry.wrong("it says neither the image's size nor where the image is; put the image beside it")
        return image_size(found)
    return size_of(entry, ("imageHeight", "imageWidth"), found)


def _shapes(file: Entry) -> list[Entry]:
    values = file.values["shapes"]
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise file.wrong("expected shapes as a list of objects")
    return [Entry(f"{file.called}: shape {place}", value) for place, value in enumerate(values, start=1)]


def _kind(shape: Entry) -> str:
    return str(shape.values.get("shape_type") or "polygon")


def _add(builder: ImageBuilder, shape: Entry, order: int) -> None:
    kind, label = _kind(shape), _label(shape)
    if kind not in _READ:
        return  # counted where the labels were gathered
    if kind == "rectangle":
        corners = _rectangle(shape)
        if is_upright(corners) and label not in (_IGNORED, _BACKGROUND):
            builder.prompts.add_box(shape, label, corners)
            return
    if kind in _OUTLINES or kind == "rectangle":
        mask = _outline(shape, kind, builder.size_hw)
        group = shape.values.get("group_id")
        if group is not None and not isinstance(group, int | float | str):
            raise shape.wrong(f"expected group_id as a number, got {group!r}")
        if label == _BACKGROUND:
            builder.cut(mask)
        else:
            builder.add(Annotation(label, mask, score_of(shape), ignore=label == _IGNORED, order=order), group)
        return
    points = points_of(shape, shape.get("points", list))
    if label in (_IGNORED, _BACKGROUND):
        raise shape.wrong(f"{label} as a {kind}, which encloses no pixels; use a polygon")
    if kind in {"point", "points"}:
        builder.prompts.add_points(label, _corners(shape, points, None))
    else:
        builder.prompts.add_scribble(label, _corners(shape, points, None))


def _rectangle(shape: Entry) -> list[list[float]]:
    """The four corners of a rectangle, which is saved as two opposite ones or as all four."""
    points = points_of(shape, shape.get("points", list))
    if len(points) == 4:
        return points
    (x0, y0), (x1, y1) = _corners(shape, points, 2)
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def _outline(shape: Entry, kind: str, size_hw: tuple[int, int]) -> Rle:
    if kind == "mask":
        return _mask(shape, size_hw)
    points = _rectangle(shape) if kind == "rectangle" else shape.get("points", list)
    if kind == "circle":
        (x, y), (rim_x, rim_y) = _corners(shape, points_of(shape, points), 2)
        radius = math.hypot(rim_x - x, rim_y - y)
        points = ellipse_corners(x, y, radius, radius)
    return filled(shape, polygon(shape, points, size_hw), size_hw)


def _label(shape: Entry) -> str:
    label: str = shape.get("label", str)
    if not label.strip():
        raise shape.wrong("its label is empty")
    return label


def _corners(shape: Entry, points: list[list[float]], count: int | None) -> list[list[float]]:
    if not points or (count and len(points) != count):
        raise shape.wrong(f"expected {count or 'some'} points, got {len(points)}")
    return points


def _mask(shape: Entry, size_hw: tuple[int, int]) -> Rle:
    """A shape of kind mask: a PNG of the box between two pixels, both within it."""
    (x0, y0), (x1, y1) = _corners(shape, points_of(shape, shape.get("points", list)), 2)
    left, top, right, bottom = (int(side) for side in (x0, y0, x1, y1))
    drawn = _decoded(shape, size_hw)
    if drawn.shape != (bottom - top + 1, right - left + 1):
        raise shape.wrong(f"its mask is {drawn.shape[1]} x {drawn.shape[0]} pixels and does not fit its points")
    if left < 0 or top < 0 or right >= size_hw[1] or bottom >= size_hw[0]:
        raise shape.wrong(f"its mask lies outside its image of {size_hw[1]} x {size_hw[0]} pixels")
    return rle.encode_at(drawn, left, top, size_hw)


def _decoded(shape: Entry, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    text = shape.get("mask", str)
    try:
        mask = read_mask(base64.b64decode(text, validate=True), max_pixels=size_hw[0] * size_hw[1])
    except (ValueError, InputError) as error:
        raise shape.wrong(f"its mask is no PNG as base64 ({error})") from error
    return mask > 0


def _written(annotation: Annotation, group: int, export: Export) -> Iterator[dict[str, Any]]:
    about: dict[str, Any] = {
        "label": _IGNORED if annotation.ignore else annotation.label,
        "description": "",
        "flags": {},
    }
    if annotation.score is not None:
        about["score"] = round(annotation.score, 6)
    if not export.polygons:
        x, y, mask = annotation.crop
        corners = [[x, y], [x + mask.shape[1] - 1, y + mask.shape[0] - 1]]
        yield about | {"points": corners, "group_id": None, "shape_type": "mask", "mask": _png(mask)}
        return
    outlines = polygons(annotation.mask, export.tolerance)
    for corners_xy in outlines:
        together = group if len(outlines) > 1 else None
        yield about | {"points": corners_xy.tolist(), "group_id": together, "shape_type": "polygon", "mask": None}


def _marks(prompts: Prompts) -> Iterator[dict[str, Any]]:
    """Shapes of boxes, points and lines."""
    shapes = [(label, "rectangle", [row[:2], row[2:]]) for label, rows in prompts.boxes.items() for row in rows]
    shapes += [(label, "point", [row]) for label, rows in prompts.points.items() for row in rows]
    shapes += [(label, "linestrip", line) for label, lines in prompts.scribbles.items() for line in lines]
    for label, kind, points in shapes:
        about: dict[str, Any] = {"label": label, "description": "", "flags": {}, "group_id": None, "mask": None}
        yield about | {"points": points, "shape_type": kind}


def _png(mask: NDArray[np.bool_]) -> str:
    packed = io.BytesIO()
    Image.fromarray(mask).save(packed, format="PNG")
    return base64.b64encode(packed.getvalue()).decode("ascii")


FORMAT = Labelme()
