"""Write labels as COCO JSON."""

import json
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_rle

from kshot.annotations.model import Export, LabelTree, Part
from kshot.annotations.polygons import polygons
from kshot.io.atomic import write_text


def save(tree: LabelTree, path: Path, how: Export | None = None) -> None:
    """Write labels as one file; what is neither of a class nor a crowd of it is left out. Raises `OutputError`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(tree.images, start=1):
        height, width = image.size_hw
        images.append({"id": image_id, "file_name": image.name, "height": height, "width": width})
        for part in image.parts:
            if part.label in tree.classes:
                named = {"id": len(annotations) + 1, "image_id": image_id}
                annotations.append(named | {"category_id": tree.classes.index(part.label) + 1} | _shaped(part, how))
    data = {
        "info": {"description": "Segmentation masks written by kshot", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(tree.classes, start=1)],
    }
    write_text(path, json.dumps(data, allow_nan=False) + "\n")


def _shaped(part: Part, how: Export | None) -> dict[str, Any]:
    segmentation: Any = {"size": list(part.rle["size"]), "counts": part.rle["counts"].decode("ascii")}
    if how and how.polygons and not part.ignore:  # a crowd is a run length by COCO's own rule
        segmentation = [corners.ravel().tolist() for corners in polygons(part.mask, how.tolerance)]
    shaped = {
        "segmentation": segmentation,
        "area": part.area,
        "bbox": [float(side) for side in coco_rle.toBbox(part.rle)],
        "iscrowd": int(part.ignore),
    }
    return shaped if part.score is None else shaped | {"score": round(part.score, 6)}
