"""YOLO-seg as Ultralytics has it: images/, labels/ with a polygon per object and line, and data.yaml.

A line holds one polygon, so holes and further parts of an object are bridged to its outline by cuts of no width.
Labels of whole classes are split into their connected parts, because a line is one object to those who train on it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from kshot.annotations.model import Export, LabelledImage, LabelTree, Part, shots_of, with_instances
from kshot.annotations.polygons import bridged, rings
from kshot.formats import _yolo_read
from kshot.io.atomic import write_text
from kshot.types import Shot

FOLDER_OUT = "yolo"
LAYOUT = "YOLO: images/x.jpg, labels/x.txt with polygons or boxes, and data.yaml that names the classes"


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/yolo with its images; returns the path of its data.yaml.

    Without a tolerance the polygons follow every pixel, and nothing is lost but scores and ignored pixels. An image
    without objects gets an empty file, which says so. Raises `OutputError`.
    """
    how = how or Export()
    folder = out / FOLDER_OUT
    for image in (tree if tree.objects else with_instances(tree, "components")).images:
        image.place(folder / "images", how)
        lines = "".join(_lines(image, tree.classes, how))
        write_text(folder / "labels" / f"{image.stem}.txt", lines)
    names = dict(enumerate(tree.classes))
    # Without a path Ultralytics takes the folder of the file. It wants both sets; whoever trains splits them.
    data = {"train": "images", "val": "images", "names": names}
    write_text(folder / "data.yaml", yaml.safe_dump(data, allow_unicode=True, sort_keys=False))
    return folder / "data.yaml"


def read_shots(folder: Path) -> list[Shot] | None:
    """Masks from polygons and boxes from lines of four numbers; None without both folders and labels.

    Raises `SupportError` that names the file and the line.
    """
    tree = read_tree(folder)
    return None if tree is None else shots_of(tree)


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """The objects of all images of a YOLO folder; an image without a file of labels holds none."""
    return _yolo_read.read_tree(where)


def _lines(image: LabelledImage, classes: Sequence[str], how: Export) -> Iterator[str]:
    height, width = image.size_hw
    for part in image.parts:
        if not part.ignore:
            corners = _outline(part, how.tolerance) / (width, height)
            yield f"{classes.index(part.label)} {' '.join(f'{number:.8f}' for number in corners.ravel())}\n"


def _outline(part: Part, tolerance: float) -> NDArray[np.float64]:
    left, top, mask = part.crop
    corners: NDArray[np.float64] = bridged(rings(mask, tolerance)) + np.array([left, top])
    return corners
