"""CVAT for images 1.1: one XML for a folder, with masks or polygons.

CVAT's masks are run lengths of a box, row by row, beginning with what is outside. The format has no place for scores.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.model import Export, LabelledImage, LabelTree, Part, shots_of
from kshot.annotations.polygons import polygons
from kshot.errors import OutputError
from kshot.formats import _cvat_read
from kshot.formats.overlay import colour_of
from kshot.io.atomic import atomic_path
from kshot.types import Shot

FILE = "cvat.xml"
LAYOUT = "CVAT: one CVAT for images 1.1 .xml in the folder or in annotations/, with the images beside it or in images/"


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/cvat.xml, an image at a time; returns its path.

    Masks lose nothing but scores and ignored pixels; holes of polygons are bridged to their outline. Raises
    `OutputError`, also for a name with control characters, which XML cannot hold.
    """
    path = out / FILE
    with atomic_path(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write(_text(path, _meta(tree.classes)))
        for number, image in enumerate(tree.images):
            file.write(_text(path, _image(number, image, how or Export())))
        file.write("</annotations>\n")
    return path


def read_shots(folder: Path) -> list[Shot] | None:
    """Masks from masks, polygons and ellipses; boxes; points; scribbles from polylines. None without such a file.

    Raises `SupportError` that names the file, the image and the shape.
    """
    tree = read_tree(folder)
    return None if tree is None else shots_of(tree)


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """The shapes of a CVAT file, or of the one in a folder; shapes of one label and group are one object."""
    return _cvat_read.read_tree(where, images)


def _meta(classes: Sequence[str]) -> ElementTree.Element:
    meta = ElementTree.Element("meta")
    task = ElementTree.SubElement(meta, "task")
    ElementTree.SubElement(task, "name").text = "kshot"
    labels = ElementTree.SubElement(task, "labels")
    for index, name in enumerate(classes, start=1):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*colour_of(index))
        ElementTree.SubElement(label, "type").text = "any"
        ElementTree.SubElement(label, "attributes")
    return meta


def _image(number: int, image: LabelledImage, how: Export) -> ElementTree.Element:
    height, width = image.size_hw
    about = {"id": str(number), "name": image.name, "width": str(width), "height": str(height)}
    element = ElementTree.Element("image", about)
    for order, part in enumerate(image.parts, start=1):
        if not part.ignore:
            common = {"label": part.label, "source": "auto", "occluded": "0", "z_order": "0"}
            for kind, shape in _shapes(part, order, how):
                ElementTree.SubElement(element, kind, common | shape)
    return element


def _shapes(part: Part, group: int, how: Export) -> Iterator[tuple[str, dict[str, str]]]:
    if not how.polygons:
        left, top, mask = part.crop
        place = {"left": left, "top": top, "width": mask.shape[1], "height": mask.shape[0]}
        yield "mask", {"rle": ", ".join(map(str, _runs(mask)))} | {name: str(value) for name, value in place.items()}
        return
    outlines = polygons(part.mask, how.tolerance)
    together = {"group_id": str(group)} if len(outlines) > 1 else {}
    for corners in outlines:
        yield "polygon", {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in corners)} | together


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask, row by row; the first is of what is outside, and may be 0."""
    flat = np.concatenate([[False], mask.ravel(), [False]])
    ends = np.append(np.flatnonzero(flat[1:-1] != flat[:-2]), mask.size)
    runs: list[int] = np.diff(ends, prepend=0).tolist()
    return runs


def _text(path: Path, element: ElementTree.Element) -> str:
    for text in (value for node in element.iter() for value in (node.text or "", *node.attrib.values())):
        if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text):
            raise OutputError(f"{path}: XML cannot hold the name {text!r}; rename it, or choose another format")
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding="unicode") + "\n"
