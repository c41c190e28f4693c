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
from kshot.annotations.checked_json import Entry, points_of, polygon, read_json, score_of, size_of
from kshot.annotations.model import (
    DEFAULT_EXPORT,
    Annotation,
    AnnotationSet,
    Export,
    ImageBuilder,
    LabelledImage,
    LazyImages,
)
from kshot.annotations.pairing import ImageFinder
from kshot.annotations.polygons import ellipse_corners, polygons
from kshot.annotations.rle import Rle
from kshot.errors import InputError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.io.atomic import write_text
from kshot.io.images import image_size, read_mask
from kshot.io.names import below
from kshot.io.paths import walk
from kshot.io.stems import unique_stems

_VERSION = "5.5.0"  # labelme warns about files of a newer version than its own
_KEYS = {"shapes", "imagePath"}
_OUTLINES = {"polygon", "oriented_rectangle", "mask", "circle"}
_IGNORED, _BACKGROUND = "__ignore__", "_background_"  # as labelme's own tools call them


class Labelme(AnnotationReader, AnnotationWriter):
    """A .json beside each image."""

    layout = "labelme: x.json of labelme beside each image"
    output = "labelme"

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/labelme/<stem>.json beside its image, since labelme lists a folder's images. Returns the folder.

        Masks lose nothing. Polygons have no holes in labelme: a hole is bridged to its outline by a cut of no width.
        Ignored pixels are called __ignore__. Raises `OutputError`.
        """
        folder = out / self.output
        for image in annotations.images:
            objects = enumerate(image.annotations, start=1)
            data: dict[str, Any] = {
                "version": _VERSION,
                "flags": {},
                "shapes": [shape for group, one in objects for shape in _written(one, group, export)],
                "imagePath": image.place_in(folder, export) or PurePosixPath(image.name).name,
                "imageData": None,
                "imageHeight": image.size_hw[0],
                "imageWidth": image.size_hw[1],
            }
            write_text(below(out, folder / f"{image.stem}.json"), dumps(data, indent=2, allow_nan=False) + "\n")
        return folder

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """Masks from polygons, masks and circles; boxes from rectangles; points; scribbles from lines.

        Of all files in a folder and below, or of one; shapes of one label and group are one object.
        """
        paths = [where] if where.is_file() else sorted(walk(where, _is_json))
        files = [path for path in paths if _is_json(path) and _is_labelme(read_json(path))]
        if not files:
            return None
        root = where.parent if where.is_file() else where
        stems = unique_stems([path.relative_to(root).as_posix() for path in files])
        finder = ImageFinder(root, images)
        labels = dict.fromkeys(_label(shape) for path in files for shape in _shapes(Entry(str(path), read_json(path))))
        classes = tuple(name for name in labels if name not in (_IGNORED, _BACKGROUND))

        def read(path: Path) -> LabelledImage:
            return _image(path, root, stems[path.relative_to(root).as_posix()], finder)

        return AnnotationSet(classes, LazyImages(files, read), objects=True)


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json" and path.name[0] != "."


def _is_labelme(data: Any) -> bool:
    return isinstance(data, dict) and data.keys() >= _KEYS


def _image(path: Path, root: Path, stem: str, finder: ImageFinder) -> LabelledImage:
    entry = Entry(str(path), read_json(path))
    given = entry.get("imagePath", str).replace("\\", "/")
    found = finder.find(given, first=path.parent)
    builder = ImageBuilder(_size(entry, found))
    for shape in _shapes(entry):
        if _label(shape) != _BACKGROUND:
            _add(builder, shape)
    name = PurePosixPath(path.relative_to(root).as_posix()).with_suffix(PurePosixPath(given).suffix or ".jpg")
    return builder.build(name.as_posix(), found, stem)


def _size(entry: Entry, found: Path | None) -> tuple[int, int]:
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


def _add(builder: ImageBuilder, shape: Entry) -> None:
    kind, label = str(shape.values.get("shape_type") or "polygon"), _label(shape)
    if kind in _OUTLINES:
        group = shape.values.get("group_id")
        mask = _outline(shape, kind, builder.size_hw)
        if group is not None and not isinstance(group, int | float | str):
            raise shape.wrong(f"expected group_id as a number, got {group!r}")
        builder.add(Annotation(label, mask, score_of(shape), ignore=label == _IGNORED), group)
        return
    points = points_of(shape, shape.get("points", list))
    if kind == "rectangle":
        builder.prompts.add_box(shape, label, _corners(shape, points, 2))
    elif kind in {"point", "points"}:
        builder.prompts.add_points(label, _corners(shape, points, None))
    elif kind in {"line", "linestrip"}:
        builder.prompts.add_scribble(label, _corners(shape, points, None))
    else:
        raise shape.wrong(f"an unknown shape_type {kind!r}; there are polygon, mask, rectangle, circle, point, line")


def _outline(shape: Entry, kind: str, size_hw: tuple[int, int]) -> Rle:
    if kind == "mask":
        return _mask(shape, size_hw)
    points = shape.get("points", list)
    if kind == "circle":
        (x, y), (rim_x, rim_y) = _corners(shape, points_of(shape, points), 2)
        radius = math.hypot(rim_x - x, rim_y - y)
        points = ellipse_corners(x, y, radius, radius)
    return rle.encode_polygon(polygon(shape, points, size_hw), size_hw)


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


def _png(mask: NDArray[np.bool_]) -> str:
    packed = io.BytesIO()
    Image.fromarray(mask).save(packed, format="PNG")
    return base64.b64encode(packed.getvalue()).decode("ascii")


FORMAT = Labelme()
