"""COCO JSON: one annotation per image and class, as compressed RLE, with its score.

`write_folder` reads the masks back from the index PNGs of a run and keeps their RLE alone, so that its memory does
not grow with the pixels, and orders images by name, so that a resumed run gives the same bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from kshot.errors import MaskError
from kshot.formats import _coco_read
from kshot.formats.images import read_mask
from kshot.formats.writing import write_text
from kshot.types import IGNORE, Prediction, Shot, check_same_size

FILE = "coco.json"
WRITES = (".json",)
LAYOUT = "COCO: one COCO .json in the folder or in annotations/, with the images beside it or in images/"


def write(prediction: Prediction, path: Path) -> None:
    """Write one prediction; the image is called by the path's stem, as a prediction does not know its file.

    The score of an annotation is the mean score of its class over its pixels. Raises `OutputError`.
    """
    scores = {
        name: float(prediction.scores[i + 1][prediction.mask == i + 1].mean())
        for i, name in enumerate(prediction.classes)
        if (prediction.mask == i + 1).any()
    }
    _save(
        path, [(path.stem, prediction.size_hw, _found(prediction.mask, scores, prediction.classes))], prediction.classes
    )


def write_folder(out: Path, records: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> Path:
    """Write `out`/coco.json from manifest records and the index PNGs that they name; returns its path.

    Failed images are left out, since without annotations they would count as holding nothing; of several records of
    one input the last holds. Raises `MaskError` when a mask does not fit its record, `ImageReadError`, `OutputError`.
    """
    images: dict[str, tuple[str, tuple[int, int], list[dict[str, Any]]]] = {}
    for record in records:
        name = record["input"]
        if record["status"] == "failed":
            images.pop(name, None)
            continue
        mask = _mask(out, record, len(classes))
        scores = {label: about["score"] for label, about in record["classes"].items()}
        images[name] = (name, (mask.shape[0], mask.shape[1]), _found(mask, scores, classes))
    _save(out / FILE, [images[name] for name in sorted(images)], classes)
    return out / FILE


def read_shots(folder: Path) -> list[Shot] | None:
    """Shots of the annotated images, a mask with a label per class; None when there is no COCO file.

    Crowds become 255, ignore; where instances overlap the smaller is on top. Images whose annotations have boxes
    alone become box shots, one per class. Raises `SupportError` that names the file and the item.
    """
    return _coco_read.read_shots(folder)


def _mask(out: Path, record: Mapping[str, Any], ways: int) -> NDArray[np.uint8]:
    path = out / record["mask"]
    mask = read_mask(path, drawn=False)
    check_same_size(mask.shape, tuple(record["size_hw"]), str(path))
    labels = mask[mask != IGNORE]
    if labels.size and labels.max() > ways:
        raise MaskError(f"{path}: holds the label {labels.max()}, expected 0..{ways} for {ways} classes")
    return mask


def _found(mask: NDArray[np.uint8], scores: Mapping[str, float], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The annotations of one mask, still without their ids."""
    annotations = []
    for index, name in enumerate(classes, start=1):
        of_class = mask == index
        if of_class.any():
            encoded = rle.encode(np.asfortranarray(of_class, np.uint8))
            annotations.append(
                {
                    "category_id": index,
                    "segmentation": {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")},
                    "area": int(rle.area(encoded)),
                    "bbox": [float(side) for side in rle.toBbox(encoded)],
                    "iscrowd": 0,
                    "score": round(float(scores[name]), 6),
                }
            )
    return annotations


def _save(
    path: Path, found: Iterable[tuple[str, tuple[int, int], list[dict[str, Any]]]], classes: Sequence[str]
) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, (height, width), of_image) in enumerate(found, start=1):
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for annotation in of_image:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(classes, start=1)]
    data = {
        "info": {"description": "Segmentation masks predicted by kshot", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    write_text(path, json.dumps(data, allow_nan=False) + "\n")
