"""labelme: one JSON per image, as labelme 5 and 6 read and write it."""

import base64
import io
from collections.abc import Iterator
from itertools import chain
from json import dumps
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.annotations.model import Export, LabelTree, Part, shots_of
from kshot.annotations.polygons import polygons
from kshot.formats import _labelme_read
from kshot.io.atomic import write_text
from kshot.types import Shot

FOLDER_OUT = "labelme"
LAYOUT = "labelme: x.json of labelme beside each image"
_VERSION = "5.5.0"  # labelme warns about files of a newer version than its own


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/labelme/<stem>.json beside its image, since labelme lists a folder's images. Returns the folder.

    Masks lose nothing. Polygons have no holes in labelme: a hole is bridged to its outline by a cut of no width.
    Ignored pixels are called __ignore__, as labelme's own tools call them. Raises `OutputError`.
    """
    folder = out / FOLDER_OUT
    for image in tree.images:
        path = folder / f"{image.stem}.json"
        shapes = list(chain.from_iterable(_shapes(part, i, how or Export()) for i, part in enumerate(image.parts, 1)))
        data: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": image.place(folder, how) or PurePosixPath(image.name).name,
            "imageData": None,
            "imageHeight": image.size_hw[0],
            "imageWidth": image.size_hw[1],
        }
        write_text(path, dumps(data, indent=2, allow_nan=False) + "\n")
    return folder


def read_shots(folder: Path) -> list[Shot] | None:
    """Masks from polygons, masks and circles; boxes from rectangles; points; scribbles from lines.

    None without any file of labelme. Raises `SupportError` that names the file and the shape.
    """
    tree = read_tree(folder)
    return None if tree is None else shots_of(tree)


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """The shapes of all files of labelme in a folder and below; shapes of one label and group are one object."""
    return _labelme_read.read_tree(where, images)


def _shapes(part: Part, group: int, how: Export) -> Iterator[dict[str, Any]]:
    about: dict[str, Any] = {"label": "__ignore__" if part.ignore else part.label, "description": "", "flags": {}}
    if part.score is not None:
        about["score"] = round(part.score, 6)
    if not how.polygons:
        x, y, mask = part.crop
        corners = [[x, y], [x + mask.shape[1] - 1, y + mask.shape[0] - 1]]
        yield about | {"points": corners, "group_id": None, "shape_type": "mask", "mask": _png(mask)}
        return
    outlines = polygons(part.mask, how.tolerance)
    for corners_xy in outlines:
        together = group if len(outlines) > 1 else None
        yield about | {"points": corners_xy.tolist(), "group_id": together, "shape_type": "polygon", "mask": None}


def _png(mask: NDArray[np.bool_]) -> str:
    packed = io.BytesIO()
    Image.fromarray(mask).save(packed, format="PNG")
    return base64.b64encode(packed.getvalue()).decode("ascii")
