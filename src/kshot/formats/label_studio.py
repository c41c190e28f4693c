"""Label Studio: predictions to import, and exports to read. Shapes are brush strokes or polygons."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from kshot.annotations.model import Export, LabelledImage, LabelTree, Part, shots_of
from kshot.annotations.polygons import polygons
from kshot.formats import _label_studio_read
from kshot.formats._brush import encode
from kshot.formats.overlay import colour_of
from kshot.io.atomic import atomic_path, write_text
from kshot.types import Shot

FILE, CONFIG = "label_studio.json", "label_studio.xml"
LAYOUT = "Label Studio: one exported .json in the folder or in annotations/, with the images beside it or in images/"
MODEL_VERSION = "kshot"
_FROM, _TO = "label", "image"


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/label_studio.json, an image at a time, and the labelling set-up beside it; returns the path.

    Images are named as local files below the storage's root, by their path in the folder of images. Brush strokes
    lose ignored pixels alone; holes of polygons are bridged to their outline. Raises `OutputError`.
    """
    how = how or Export()
    path = out / FILE
    with atomic_path(path) as beside, beside.open("w", encoding="utf-8") as file:
        for number, image in enumerate(tree.images, start=1):
            file.write(("[\n" if number == 1 else ",\n") + json.dumps(_task(number, image, how), allow_nan=False))
        file.write("\n]\n" if file.tell() else "[]\n")
    write_text(out / CONFIG, _config(tree.classes, "PolygonLabels" if how.polygons else "BrushLabels"))
    return path


def read_shots(folder: Path) -> list[Shot] | None:
    """Masks from brush strokes, polygons and ellipses; boxes from rectangles; points from key points.

    None without an export. Raises `SupportError` that names the file, the task and the region.
    """
    tree = read_tree(folder)
    return None if tree is None else shots_of(tree)


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """What an export marks: of each task its ground truth, else its first annotation, else its first prediction."""
    return _label_studio_read.read_tree(where, images)


def _task(number: int, image: LabelledImage, how: Export) -> dict[str, Any]:
    kept = [part for part in image.parts if not part.ignore]
    result = [region for place, part in enumerate(kept, 1) for region in _regions(f"{number}-{place}", part, how)]
    for region in result:
        region |= {"from_name": _FROM, "to_name": _TO, "image_rotation": 0}
        region |= {"original_width": image.size_hw[1], "original_height": image.size_hw[0]}
    scores = [part.score for part in kept if part.score is not None]
    prediction: dict[str, Any] = {"model_version": MODEL_VERSION, "result": result}
    if scores:
        prediction["score"] = round(sum(scores) / len(scores), 6)
    return {"data": {"image": f"/data/local-files/?d={_quoted(image.name)}"}, "predictions": [prediction]}


def _regions(name: str, part: Part, how: Export) -> Iterator[dict[str, Any]]:
    about: dict[str, Any] = {} if part.score is None else {"score": round(part.score, 6)}
    if not how.polygons:
        brush = {"format": "rle", "rle": encode(part.mask), "brushlabels": [part.label]}
        yield {"id": name, "type": "brushlabels", "value": brush} | about
        return
    height, width = part.rle["size"]
    for index, corners in enumerate(polygons(part.mask, how.tolerance)):
        points = [[round(100 * x / width, 6), round(100 * y / height, 6)] for x, y in corners.tolist()]
        value: dict[str, Any] = {"points": points, "closed": True, "polygonlabels": [part.label]}
        yield {"id": f"{name}-{index}", "type": "polygonlabels", "value": value} | about


def _quoted(name: str) -> str:
    return quote(name, errors="surrogateescape")


def _config(classes: Sequence[str], kind: str) -> str:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": _TO, "value": "$image", "zoom": "true"})
    labels = ElementTree.SubElement(view, kind, {"name": _FROM, "toName": _TO})
    for index, name in enumerate(classes, start=1):
        colour = "#{:02x}{:02x}{:02x}".format(*colour_of(index))
        ElementTree.SubElement(labels, "Label", {"value": name, "background": colour})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
