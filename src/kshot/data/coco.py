"""COCO 2014 and 2017, and COCO-20i.

Lin et al. 2014; folds of Nguyen and Todorovic 2019 (FWB) as HSNet uses them: fold f tests the 0-based classes
f + 4v, v = 0..19, where the 80 category ids are numbered in their order. Label maps are painted per image when they
are asked for: crowds first, as 255, then objects from the largest to the smallest, so that what lies on top shows.
A class counts in an image from 2 * 32 * 32 pixels on, as in PFENet's lists.
"""

import json
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot.annotations import rle
from kshot.annotations.checked_json import Entry
from kshot.annotations.model import paint
from kshot.annotations.rle import Rle
from kshot.data._report import Problem, check_problems
from kshot.data.base import Dataset, Sample
from kshot.errors import DatasetError, SupportError
from kshot.formats.coco import segmentation_rle
from kshot.io.paths import visible
from kshot.types import IGNORE, MAX_CLASSES

LOOKS_FOR = (
    "coco: annotations/instances_<split><year>.json with images in <split><year>/ or images/<split><year>/ "
    "(split train or val, year 2014 or 2017)"
)
MIN_AREA = 2 * 32 * 32
VAL_IMAGES = {2014: 40504, 2017: 5000}
N_CLASSES, N_FOLDS = 80, 4
_YEARS = (2014, 2017)


def locate(root: Path) -> Path | None:
    """The folder that the layout starts in, or None."""
    return root if any(_available(root)) else None


def load(
    root: Path,
    fold: int | None = None,
    strict: bool = False,
    cache: Path | None = None,
    year: int | None = None,
    splits: tuple[str, ...] = ("val",),
) -> Dataset:
    """Open COCO. year: 2014 (COCO-20i, the default when it is there) or 2017.

    splits: `val`, `train`; the train list takes a gigabyte of memory, so it is read on request, or when it is alone.
    Raises `DatasetError`.
    """
    found = dict(_available(root))
    chosen = year or min((y for y, _ in found), default=0)
    there = [split for y, split in found if y == chosen]
    wanted = [split for split in splits if split in there] or there
    if not wanted:
        raise DatasetError(f"{root}: no COCO{f' {year}' if year else ''} here; looked for {LOOKS_FOR}")
    files = {split: _instances_file(root, split, chosen, found[chosen, split]) for split in wanted}
    classes = _classes(files)
    problems = [problem for one in files.values() for problem in one.problems]
    tested = "val" if "val" in files else wanted[0]
    return Dataset(
        name=f"coco{chosen}",
        family="coco",
        root=root,
        layout=f"COCO {chosen}, instances of {', '.join(wanted)}",
        classes=classes,
        samples={image: sample for one in files.values() for image, sample in one.samples.items()},
        splits={split: tuple(one.samples) for split, one in files.items()},
        query_split=tested,
        support_split="train" if "train" in files else tested,
        folds=_folds(len(classes)),
        fold=fold,
        min_area=MIN_AREA,
        by_class=True,
        episodes={"pfenet": 20000},
        problems=check_problems(root, strict, problems),
        shortfalls=_shortfalls,
        cache=cache,
    )


class _InstancesFile(NamedTuple):
    """One instances file: its categories, its images that are on the disk, and what is missing."""

    names: dict[int, str]
    samples: dict[str, Sample]
    problems: tuple[Problem, ...]


def _instances_file(root: Path, split: str, year: int, path: Path) -> _InstancesFile:
    data = _read(path)
    folder = next((f for f in _folders(root, split, year) if f.is_dir()), root / f"{split}{year}")
    on_disk = {file.name: file for file in visible(folder)}
    try:
        names = {int(category["id"]): str(category["name"]) for category in data["categories"]}
        annotations = _by_image(path, data["annotations"], sorted(names))
        listed = {PurePosixPath(image["file_name"]).name: image for image in data["images"]}
        samples = {
            Path(name).stem: _sample(path, on_disk[name], image, annotations.get(image["id"], []))
            for name, image in sorted(listed.items())
            if name in on_disk
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error
    absent, extra = sorted(listed.keys() - on_disk.keys()), sorted(on_disk.keys() - listed.keys())
    problems = (
        Problem(f"images of {path.name} without a file", tuple(absent)),
        Problem(f"images in {folder.name} that {path.name} does not list", tuple(extra)),
    )
    return _InstancesFile(names, samples, problems)


def _sample(path: Path, file: Path, image: dict[str, Any], annotations: list[dict[str, Any]]) -> Sample:
    size_hw = int(image["height"]), int(image["width"])
    given = f"{path}: image {file.name}", annotations, size_hw
    return Sample(file, partial(label_map, *given), path, partial(object_map, *given))


def label_map(called: str, annotations: list[dict[str, Any]], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w) label map of one image. annotations: COCO's, each with its `label`. Raises `DatasetError`."""
    layers = _layers(called, annotations, size_hw)
    return paint(((mask, IGNORE if one["iscrowd"] else one["label"]) for mask, one in layers), size_hw, by_area=False)


def object_map(called: str, annotations: list[dict[str, Any]], size_hw: tuple[int, int]) -> NDArray[np.int32]:
    """(h, w) a number from 1 on for each annotation that lies on top of a pixel, 0 for a crowd. As `label_map`."""
    numbers = np.zeros(size_hw, np.int32)
    for number, (mask, one) in enumerate(_layers(called, annotations, size_hw), start=1):
        left, top, crop = rle.decode_crop(mask)
        numbers[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = 0 if one["iscrowd"] else number
    return numbers


def _layers(
    called: str, annotations: list[dict[str, Any]], size_hw: tuple[int, int]
) -> list[tuple[Rle, dict[str, Any]]]:
    """The annotations that cover a pixel, from the lowest to the topmost: crowds, then from the largest down."""
    try:
        encoded = [(_encode(called, one, size_hw), one) for one in annotations]
    except SupportError as error:
        raise DatasetError(str(error)) from error
    layers = [(mask, one) for mask, one in encoded if mask is not None and rle.area(mask)]
    return sorted(layers, key=lambda layer: (not layer[1]["iscrowd"], -rle.area(layer[0])))


def _encode(called: str, annotation: dict[str, Any], size_hw: tuple[int, int]) -> Rle | None:
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        # Two corners enclose nothing, and pycocotools would read four numbers as a box.
        segmentation = [polygon.tolist() for polygon in segmentation if len(polygon) >= 6]
        if not segmentation:
            return None
    return segmentation_rle(Entry(f"{called}, annotation {annotation['id']}", {"segmentation": segmentation}), size_hw)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = json.load(file, object_hook=_slim)
        if not all(isinstance(data[key], list) for key in ("images", "annotations", "categories")):
            raise TypeError("images, annotations and categories are expected as lists")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    return dict(data)


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{path}: not a COCO instances file ({type(error).__name__}: {error})")


def _slim(entry: dict[str, Any]) -> dict[str, Any]:
    """Keep of an annotation what is needed, and its polygons as packed numbers: lists take four times the memory."""
    if "category_id" not in entry or "segmentation" not in entry:
        return entry
    kept = {key: entry[key] for key in ("image_id", "category_id", "segmentation")}
    if isinstance(kept["segmentation"], list):
        kept["segmentation"] = [array("d", polygon) for polygon in kept["segmentation"]]
    return {"id": entry.get("id"), "iscrowd": bool(entry.get("iscrowd")), **kept}


def _by_image(path: Path, annotations: list[dict[str, Any]], ids: list[int]) -> dict[Any, list[dict[str, Any]]]:
    """{image id: its annotations, each with the label of its category}. ids: the categories', in order."""
    labels = {category: label for label, category in enumerate(ids, start=1)}
    found: dict[Any, list[dict[str, Any]]] = {}
    for annotation in annotations:
        if annotation.get("category_id") not in labels or "segmentation" not in annotation:
            raise DatasetError(
                f"{path}: annotation {annotation.get('id')} has no segmentation, or is of category "
                f"{annotation.get('category_id')}, which the file does not define"
            )
        label = labels[annotation["category_id"]]
        found.setdefault(annotation["image_id"], []).append({**annotation, "label": label})
    return found


def _available(root: Path) -> Iterator[tuple[tuple[int, str], Path]]:
    for year in _YEARS:
        for split in ("val", "train"):
            path = root / "annotations" / f"instances_{split}{year}.json"
            if path.is_file():
                yield (year, split), path


def _folders(root: Path, split: str, year: int) -> tuple[Path, ...]:
    return root / f"{split}{year}", root / "images" / f"{split}{year}"


def _classes(files: dict[str, _InstancesFile]) -> tuple[str, ...]:
    lists = {tuple(one.names[key] for key in sorted(one.names)) for one in files.values()}
    if len(lists) != 1:
        raise DatasetError(f"the instances files of {' and '.join(files)} define different categories")
    classes = lists.pop()
    if len(classes) > MAX_CLASSES:
        raise DatasetError(f"{len(classes)} categories; a label map holds at most {MAX_CLASSES}")
    return classes


def _folds(n_classes: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(range(f + 1, n_classes + 1, N_FOLDS)) for f in range(N_FOLDS))


def _shortfalls(dataset: Dataset) -> tuple[str, ...]:
    """Why a score here is no COCO-20i score; nothing when val2014 is whole."""
    present, size = len({pair.class_id for pair in dataset.areas()}), len(dataset.ids())
    year = 2014 if dataset.name == "coco2014" else 2017
    if len(dataset.classes) != N_CLASSES or present < N_CLASSES:
        return (f"{present} of {N_CLASSES} classes present; not a COCO-20i score",)
    if dataset.query_split != "val" or size != VAL_IMAGES[year]:
        return (f"{size} of {VAL_IMAGES[year]} val{year} images present; not a COCO-20i score",)
    return () if year == 2014 else ("COCO-20i is defined on val2014, this is val2017; not a COCO-20i score",)
