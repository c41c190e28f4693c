"""Small made-up copies of each data set's layout. Pictures are 64 x 64 and plain; only the masks matter."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from kshot.data._areas import ImageClassPair
from kshot.data.base import Dataset, Sample, label_type

SIDE = 64
Box = tuple[int, int, int, int]
HALF: Box = (0, 0, 64, 32)  # xyxy: 2048 pixels, just enough for a pair


def labels(boxes: Mapping[int, Box] | Iterable[tuple[int, Box]]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for label, (x0, y0, x1, y1) in boxes.items() if isinstance(boxes, Mapping) else boxes:
        mask[y0:y1, x0:x1] = label
    return mask


def save(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette([n % 256 for n in range(768)])
    picture.save(path)


def save_picture(path: Path, tone: int = 90) -> None:
    save(path, np.full((SIDE, SIDE, 3), tone, np.uint8))


def make_voc(root: Path, lists: Mapping[str, Mapping[str, np.ndarray]], masks: str = "SegmentationClass") -> Path:
    """lists: {split: {image id: labels}}."""
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for split, images in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{image}\n" for image in images))
        for image, mask in images.items():
            save_picture(root / "JPEGImages" / f"{image}.jpg")
            save(root / masks / f"{image}.png", mask, palette=masks == "SegmentationClass")
    return root


def whole_voc(root: Path, per_class: int = 3) -> Path:
    """Every class `per_class` times in val and in train, with a little of the next class and a band of 255."""
    lists: dict[str, dict[str, np.ndarray]] = {"train": {}, "val": {}}
    for (split, images), c, n in itertools.product(lists.items(), range(1, 21), range(per_class)):
        year = 2007 if split == "val" else 2008
        small = {c: HALF, 255: (0, 32, 64, 34), c % 20 + 1: (0, 40, 8, 48)}
        images[f"{year}_{c:03}{n:03}"] = labels(small)
    return make_voc(root, lists)


def polygon(box: Box) -> list[list[float]]:
    x0, y0, x1, y1 = map(float, box)
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def runs(box: Box, size_hw: tuple[int, int] = (SIDE, SIDE)) -> dict[str, Any]:
    """Uncompressed RLE, as COCO writes crowds."""
    x0, y0, x1, y1 = box
    mask = np.zeros(size_hw, np.uint8)
    mask[y0:y1, x0:x1] = 1
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return {"size": list(size_hw), "counts": [0, *counts] if flat[0] else counts}


def compressed(box: Box) -> dict[str, Any]:
    encoded = rle.frPyObjects(runs(box), SIDE, SIDE)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


# COCO's category ids have gaps: 80 of 1..90.
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORIES = [n for n in range(1, 91) if n not in GAPS]

Mark = tuple[int, Any, int]


def make_coco(root: Path, split: str, year: int, images: Mapping[int, Sequence[Mark]], inner: str = "") -> Path:
    """images: {id: [(category id, segmentation, iscrowd)]}; inner: `images` for that variant of the layout."""
    prefix = f"COCO_{split}{year}_" if year == 2014 else ""
    names = {number: f"{prefix}{number:012}.jpg" for number in images}
    marks = [(number, mark) for number, listed in images.items() for mark in listed]
    data = {
        "info": {"year": year},
        "images": [{"id": n, "file_name": names[n], "height": SIDE, "width": SIDE} for n in images],
        "categories": [{"id": n, "name": f"class {n}", "supercategory": "x"} for n in CATEGORIES],
        "annotations": [
            {"id": i, "image_id": n, "category_id": c, "segmentation": s, "iscrowd": crowd, "bbox": [0, 0, 1, 1]}
            for i, (n, (c, s, crowd)) in enumerate(marks)
        ],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}{year}.json").write_text(json.dumps(data))
    for name in names.values():
        save_picture(root / inner / f"{split}{year}" / name)
    return root


def whole_coco(root: Path, year: int = 2014, per_class: int = 3) -> Path:
    """Every category `per_class` times in val, with a little of the next one, and once in train."""
    pairs = list(itertools.product(range(80), range(per_class)))
    val = {
        1000 * (v + 1) + n: [
            (CATEGORIES[v], polygon(HALF), 0),
            (CATEGORIES[(v + 1) % 80], compressed((0, 40, 8, 48)), 0),
            (CATEGORIES[v], runs((60, 60, 64, 64)), 1),
        ]
        for v, n in pairs
    }
    make_coco(root, "val", year, val, inner="images" if year == 2017 else "")
    train = {9_000_000 + v: [(CATEGORIES[v], polygon(HALF), 0)] for v in range(80)}
    return make_coco(root, "train", year, train, inner="images" if year == 2017 else "")


def make_fss(root: Path, n_classes: int, area: Box = HALF, side: int = SIDE) -> Path:
    """n classes of ten pairs; every class links to the same two files, which is all that a thousand of them need."""
    root.mkdir(parents=True, exist_ok=True)
    image, mask = root.parent / f"{root.name}-image.jpg", root.parent / f"{root.name}-mask.png"
    save(image, np.full((side, side, 3), 90, np.uint8))
    grey = np.where(labels({1: area})[:side, :side] > 0, 128, 127).astype(np.uint8)
    save(mask, np.repeat(grey[..., None], 3, axis=2))
    for c in range(n_classes):
        folder = root / f"class_{c:04}"
        folder.mkdir()
        for n in range(1, 11):
            (folder / f"{n}.jpg").hardlink_to(image)
            (folder / f"{n}.png").hardlink_to(mask)
    return root


def make_index_masks(root: Path, masks: Mapping[str, np.ndarray], classes: Any) -> Path:
    for image, mask in masks.items():
        save_picture(root / "images" / f"{image}.jpg")
        save(root / "masks" / f"{image}.png", mask)
    (root / "classes.json").write_text(json.dumps(classes))
    return root


def make_class_folders(root: Path, per_class: Mapping[str, int]) -> Path:
    for tone, (name, count) in enumerate(per_class.items()):
        for n in range(count):
            save_picture(root / name / f"{name}{n}.jpg", tone)
            save(root / name / f"{name}{n}.png", labels({255: HALF}))
    return root


def from_areas(areas: Mapping[str, Mapping[int, int]], n_classes: int, **settings: Any) -> Dataset:
    """A data set that exists in the table of its areas alone: {image: {class id: pixels}}."""
    splits = settings.pop("splits", {"all": tuple(areas)})
    split = next(iter(splits))
    nothing = partial(np.zeros, (2, 2), label_type(n_classes))
    dataset = Dataset(
        name="made-up",
        family="folder",
        root=Path("made-up"),
        layout="a table",
        classes=tuple(f"class {c}" for c in range(1, n_classes + 1)),
        samples={image: Sample(Path(f"{image}.jpg"), nothing, Path(f"{image}.png")) for image in areas},
        splits=splits,
        query_split=settings.pop("query_split", split),
        support_split=settings.pop("support_split", split),
        **settings,
    )
    for name, ids in splits.items():
        dataset._areas[name] = tuple(ImageClassPair(i, c, n) for i in ids for c, n in sorted(areas[i].items()))
    return dataset
