"""CVAT for images 1.1: one XML for a folder, with masks or polygons.

CVAT's masks are run lengths of a box, row by row, beginning with what is outside. The format has no place for scores.
Files with a document type are refused, so no entity can grow or reach for other files.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from kshot.annotations import rle
from kshot.annotations.checked_json import Entry, documents, each_alone, filled, polygon, size_of, the_only
from kshot.annotations.model import (
    DEFAULT_EXPORT,
    Annotation,
    AnnotationSet,
    Export,
    ImageBuilder,
    LabelledImage,
    Prompts,
)
from kshot.annotations.pairing import ImageFinder
from kshot.annotations.rle import Rle
from kshot.annotations.skipped import Skipped
from kshot.errors import OutputError, SupportError
from kshot.formats.base import AnnotationReader, AnnotationWriter
from kshot.formats.overlay import hex_colour_of
from kshot.io.atomic import atomic_path
from kshot.io.stems import unique_stems
from kshot.ops.polygons import ellipse_corners, polygons, turned

_SHAPES = {"mask", "polygon", "ellipse", "box", "points", "polyline"}


class Cvat(AnnotationReader, AnnotationWriter):
    """One .xml for a folder of images."""

    layout = (
        "CVAT: one CVAT for images 1.1 .xml in the folder or in annotations/, with the images beside it or in images/"
    )
    output = "cvat.xml"
    holds = frozenset({"boxes", "points", "lines"})

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/cvat.xml, an image at a time; returns its path.

        Masks lose nothing but scores and ignored pixels; holes of polygons are bridged to their outline. Raises
        `OutputError`, also for a name with control characters, which XML cannot hold.
        """
        path = out / self.output
        with atomic_path(path) as beside, beside.open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
            file.write(xml_text(path, xml_meta(annotations.classes)))
            for number, image in enumerate(annotations.images):
                file.write(xml_text(path, _element(number, image, export)))
            file.write("</annotations>\n")
        return path

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """Masks from masks, polygons and ellipses; boxes; points; scribbles from polylines.

        Shapes of one label and group are one object; where shapes overlap the one of the higher z_order is on top, else
        the later one. Turned boxes become masks; other kinds of shapes are counted.
        """
        skipped = Skipped()
        read_here = each_alone(documents(where, ".xml"), _root, skipped)
        found = the_only(where, read_here, "CVAT files")
        if found is None:
            return None
        path, root = found
        if root.find("track") is not None:
            raise SupportError(f"{path}: tracks of a video; export it as 'CVAT for images 1.1'")
        elements = []
        for element in root.findall("image"):
            with skipped.alone():
                elements.append((_entry(path, element), element))
        given, finder, read = _told_apart(path, [entry for entry, _ in elements]), ImageFinder(where, images), []
        places: dict[str, tuple[Path | None, Element]] = {}
        for name, (entry, element) in zip(given, elements, strict=True):
            with skipped.alone():
                found_at = finder.find(name) or finder.find(entry.values["name"])
                named = finder.name_of(name, found_at)
                if named in places:
                    raise SupportError(f"{path}: two images of one name, {named!r}; keep one of them")
                places[named] = found_at, element
        stems = unique_stems(places)
        for name, (found_at, element) in places.items():
            with skipped.alone():
                entry = Entry(f"{path}: image {name!r}", _entry(path, element).values)
                read.append(_image(entry, element, found_at, skipped).build(name, found_at, stems[name]))
        listed = [element.text or "" for element in root.iterfind("meta//labels/label/name")]
        used = [element.get("label", "") for element in root.iterfind("image/*") if element.tag in _SHAPES]
        classes = tuple(dict.fromkeys(name for name in [*listed, *used] if name))
        return AnnotationSet(classes, read, objects=True, skipped=skipped)


def _root(path: Path) -> Element | None:
    """The root of a file of CVAT, None of another XML. Raises `SupportError`."""
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
    return root if root.tag == "annotations" else None


def _told_apart(path: Path, entries: Sequence[Entry]) -> list[str]:
    """The names of the images; with their subset before them where two have one name. Raises `SupportError`."""
    names = [str(entry.values["name"]) for entry in entries]
    if len(set(names)) < len(names):
        names = [
            f"{e.values['subset']}/{name}" if e.values.get("subset") else name
            for e, name in zip(entries, names, strict=True)
        ]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise SupportError(f"{path}: two images of one name, {twice!r}; keep one of them")
    return names


def _image(entry: Entry, element: Element, path: Path | None, skipped: Skipped) -> ImageBuilder:
    builder = ImageBuilder(size_of(entry, ("height", "width"), path))
    shapes = []
    for place, child in enumerate(element, start=1):
        shape = Entry(f"{entry.called}: {child.tag} {place}", dict(child.attrib))
        if child.tag in _SHAPES:
            with skipped.alone():
                shapes.append((_z_order(shape), child.tag, shape))
        elif child.tag != "attribute":
            skipped.leave_out(child.tag, shape.called)
    for order, (_, kind, shape) in enumerate(sorted(shapes, key=lambda one: one[0])):
        with skipped.alone():
            _add(builder, kind, shape, order)
    return builder


def _z_order(shape: Entry) -> float:
    return _number(shape, shape.values.get("z_order", "0"))


def _add(builder: ImageBuilder, kind: str, shape: Entry, order: int) -> None:
    label = shape.get("label", str)
    if not label.strip():
        raise shape.wrong("its label is empty")
    if kind == "box":
        builder.add_rectangle(shape, label, _box(shape), order)
    elif kind == "points":
        builder.prompts.add_points(label, _points(shape))
    elif kind == "polyline":
        builder.prompts.add_scribble(label, _points(shape))
    else:
        size_hw = builder.size_hw
        mask = _mask(shape, size_hw) if kind == "mask" else filled(shape, _ring(shape, kind, size_hw), size_hw)
        group = shape.values.get("group_id", "0")
        builder.add(Annotation(label, mask, order=order), None if group == "0" else group)  # CVAT's group 0 is none


def _entry(path: Path, element: Element) -> Entry:
    """An image element with its name and its size as a number."""
    entry = Entry(f"{path}: image {element.get('name')!r}", dict(element.attrib))
    entry.get("name", str)
    entry.values.update({side: _whole(entry, entry.get(side, str)) for side in ("height", "width")})
    return entry


def _ring(shape: Entry, kind: str, size_hw: tuple[int, int]) -> list[list[float]]:
    if kind == "ellipse":
        sides = [_number(shape, shape.values.get(name)) for name in ("cx", "cy", "rx", "ry")]
        return polygon(shape, _turned(shape, ellipse_corners(*sides), sides[:2]), size_hw)
    return polygon(shape, _points(shape), size_hw)


def _box(shape: Entry) -> list[list[float]]:
    x0, y0, x1, y1 = (_number(shape, shape.values.get(name)) for name in ("xtl", "ytl", "xbr", "ybr"))
    if x0 >= x1 or y0 >= y1:
        raise shape.wrong(f"expected a box with xtl < xbr and ytl < ybr, got {x0}, {y0}, {x1}, {y1}")
    return _turned(shape, [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], [(x0 + x1) / 2, (y0 + y1) / 2])


def _turned(shape: Entry, corners: list[list[float]], centre: list[float]) -> list[list[float]]:
    """Corners turned about their centre by the shape's rotation, in degrees clockwise."""
    return turned(corners, centre, _number(shape, shape.values.get("rotation", "0")))


def _points(shape: Entry) -> list[list[float]]:
    pairs = [pair.split(",") for pair in shape.get("points", str).split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise shape.wrong("expected points as x,y;x,y;...")
    return [[_number(shape, x), _number(shape, y)] for x, y in pairs]


def _mask(shape: Entry, size_hw: tuple[int, int]) -> Rle:
    left, top = _pixels(shape, "left", 0), _pixels(shape, "top", 0)
    width, height = _pixels(shape, "width"), _pixels(shape, "height")
    if left + width > size_hw[1] or top + height > size_hw[0]:
        raise shape.wrong(f"its mask lies outside its image of {size_hw[1]} x {size_hw[0]} pixels")
    runs = [_whole(shape, run) for run in shape.get("rle", str).split(",")]
    if sum(runs) != width * height:
        raise shape.wrong(f"its run lengths cover {sum(runs)} pixels, but its box has {width * height}")
    return rle.encode_at(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width), left, top, size_hw)


def _pixels(entry: Entry, name: str, least: int = 1) -> int:
    value = _whole(entry, entry.get(name, str))
    if not least <= value < 1 << 20:
        raise entry.wrong(f"expected {name} in {least}..{1 << 20} pixels, got {value}")
    return value


def _whole(entry: Entry, text: str) -> int:
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        raise entry.wrong(f"expected a whole number of pixels, got {text!r}")
    return int(digits)


def _number(entry: Entry, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise entry.wrong(f"expected a number, got {text!r}")
    return value


def xml_meta(classes: Sequence[str]) -> Element:
    """The classes and their colours."""
    meta = Element("meta")
    task = ElementTree.SubElement(meta, "task")
    ElementTree.SubElement(task, "name").text = "kshot"
    labels = ElementTree.SubElement(task, "labels")
    for index, name in enumerate(classes, start=1):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "color").text = hex_colour_of(index)
        ElementTree.SubElement(label, "type").text = "any"
        ElementTree.SubElement(label, "attributes")
    return meta


def _element(number: int, image: LabelledImage, export: Export) -> Element:
    height, width = image.size_hw
    about = {"id": str(number), "name": image.name, "width": str(width), "height": str(height)}
    element = Element("image", about)
    for group, annotation in enumerate(image.stacked, start=1):
        if not annotation.ignore:
            for kind, shape in _shapes(annotation, group, export):
                ElementTree.SubElement(element, kind, _common(annotation.label) | shape)
    for label, kind, shape in _marks(image.prompts):
        ElementTree.SubElement(element, kind, _common(label) | shape)
    return element


def _common(label: str) -> dict[str, str]:
    return {"label": label, "source": "auto", "occluded": "0", "z_order": "0"}


def _marks(prompts: Prompts) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Label, kind and attributes of boxes, points and lines."""
    for label, boxes in prompts.boxes.items():
        for box in boxes:
            yield label, "box", {side: f"{at:.2f}" for side, at in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)}
    for label, points in prompts.points.items():
        yield label, "points", {"points": pairs(points)}
    for label, lines in prompts.scribbles.items():
        for line in lines:
            yield label, "polyline", {"points": pairs(line)}


def pairs(points: Iterable[Sequence[float]]) -> str:
    """Points as CVAT writes them."""
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _shapes(annotation: Annotation, group: int, export: Export) -> Iterator[tuple[str, dict[str, str]]]:
    if not export.polygons:
        left, top, mask = annotation.crop
        place = {"left": left, "top": top, "width": mask.shape[1], "height": mask.shape[0]}
        counts = ", ".join(map(str, rle.row_counts(mask).tolist()))
        yield "mask", {"rle": counts} | {name: str(value) for name, value in place.items()}
        return
    outlines = polygons(annotation.mask, export.tolerance)
    together = {"group_id": str(group)} if len(outlines) > 1 else {}
    for corners in outlines:
        yield "polygon", {"points": pairs(corners)} | together


def xml_text(path: Path, element: Element) -> str:
    """An element as text. Raises `OutputError` for what XML cannot hold; path: of the file, for messages."""
    for text in (value for node in element.iter() for value in (node.text or "", *node.attrib.values())):
        if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text):
            raise OutputError(f"{path}: XML cannot hold the name {text!r}; rename it, or choose another format")
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding="unicode") + "\n"


FORMAT = Cvat()
