"""Read supports from a COCO JSON, which anybody may have written: every id, size and number is checked."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from kshot.annotations.checked_json import Images, Item, documents, read_json, score_of, size_of
from kshot.annotations.model import LabelledImage, LabelTree, Part
from kshot.annotations.rle import box, has_shape, shape
from kshot.errors import SupportError
from kshot.io.images import image_size
from kshot.io.paths import unique_stems
from kshot.types import IGNORE, MAX_CLASSES, Shot

Named = tuple[Item, str]
_KEYS = {"images", "annotations", "categories"}


def read_shots(folder: Path) -> list[Shot] | None:
    """Shots of the annotated images in the folder's COCO file; None when there is none. Raises `SupportError`."""
    found = _annotated(folder)
    if found is None:
        return None
    used, _, pictures = found
    labels = {name: label for label, name in enumerate(used, start=1)}
    return [shot for image, named in pictures if named for shot in _shots_of(folder, image, named, labels)]


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """The objects of a COCO file, or of the one in a folder; images without any are kept. Raises `SupportError`."""
    found = _annotated(where)
    if found is None:
        return None
    used, every, pictures = found
    finder = Images(where, images)
    files = {id(image): image.get("file_name", str) for image, _ in pictures}
    stems = unique_stems(files.values())
    read = [_labelled(finder, image, named, stems[files[id(image)]]) for image, named in pictures]
    return LabelTree(every if len(every) <= MAX_CLASSES else used, read, objects=True)


def _labelled(finder: Images, image: Item, named: list[Named], stem: str) -> LabelledImage:
    path = finder.find(image.values["file_name"])
    size_hw = size_of(image, ("height", "width"), path)
    parts: list[Part] = []
    boxes: dict[str, list[list[float]]] = {}
    for item, name in named:
        if has_shape(item):
            parts.append(Part(name, shape(item, size_hw), score_of(item), ignore=bool(item.values.get("iscrowd"))))
        else:
            boxes.setdefault(name, []).append(box(item))
    return LabelledImage(image.values["file_name"], size_hw, tuple(parts), path, stem, boxes)


def _annotated(where: Path) -> tuple[tuple[str, ...], tuple[str, ...], list[tuple[Item, list[Named]]]] | None:
    """Names of the classes that are used, of all in the file's order, and each image with its named annotations."""
    found = list(_coco_files(where))
    if not found:
        return None
    if len(found) > 1:
        raise SupportError(f"{where}: several COCO files ({', '.join(str(p) for p, _ in found)}); keep one")
    path, data = found[0]
    images = _by_id(path, data, "images", "image")
    names = {key: _name(item) for key, item in _by_id(path, data, "categories", "category").items()}
    marks: dict[Any, list[Item]] = {key: [] for key in images}
    for item in _items(path, data, "annotations", "annotation"):
        marks[_known(item, "image_id", images)].append(item)
        _known(item, "category_id", names)
    used = {item.values["category_id"] for items in marks.values() for item in items}
    labels = _labels(path, (name for key, name in names.items() if key in used))
    named = [
        (image, [(item, names[item.values["category_id"]]) for item in marks[key]]) for key, image in images.items()
    ]
    return tuple(labels), tuple(dict.fromkeys(names.values())), named


def _shots_of(folder: Path, image: Item, named: list[Named], labels: Mapping[str, int]) -> list[Shot]:
    """The shots of one image: one with a mask, or one with boxes per class."""
    size_hw = (image.whole("height"), image.whole("width"))
    path = _image_path(folder, image, size_hw)
    if any(has_shape(item) for item, _ in named):
        mask = _painted(named, labels, size_hw)
        shown = {label: name for name, label in labels.items() if (mask == label).any()}
        return [Shot(path, mask=mask, label=shown)] if shown else []
    boxes: dict[str, list[list[float]]] = {}
    for item, name in named:
        boxes.setdefault(name, []).append(box(item))
    return [Shot(path, boxes=rows, label=name) for name, rows in boxes.items()]


def _painted(named: list[Named], labels: Mapping[str, int], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w) labels: crowds first as 255, then instances from the largest to the smallest."""
    layers = []
    for item, name in named:
        crowd = bool(item.values.get("iscrowd"))
        encoded = shape(item, size_hw)
        layers.append((not crowd, -int(rle.area(encoded)), IGNORE if crowd else labels[name], encoded))
    mask = np.zeros(size_hw, np.uint8)
    for _, _, label, encoded in sorted(layers, key=lambda layer: layer[:2]):
        mask[rle.decode(encoded) > 0] = label
    return mask


def _coco_files(where: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in documents(where, ".json"):
        data = read_json(path)
        if isinstance(data, dict) and data.keys() >= _KEYS:
            yield path, data


def _items(path: Path, data: Mapping[str, Any], key: str, kind: str) -> list[Item]:
    values = data[key]
    if not isinstance(values, list):
        raise SupportError(f"{path}: expected {key!r} as a list, got {type(values).__name__}")
    items = []
    for place, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise SupportError(f"{path}: expected objects in {key!r}, got {short(value)} at place {place}")
        called = short(value["id"]) if "id" in value else f"at place {place}"
        items.append(Item(f"{path}: {kind} {called}", value))
    return items


def _by_id(path: Path, data: Mapping[str, Any], key: str, kind: str) -> dict[int | str, Item]:
    found: dict[int | str, Item] = {}
    for item in _items(path, data, key, kind):
        if item.get("id", int, str) in found:
            raise item.wrong(f"this id occurs twice in {key!r}")
        found[item.values["id"]] = item
    return found


def _known(item: Item, key: str, known: Mapping[Any, Any]) -> Any:
    value = item.get(key, int, str)
    if value not in known:
        some = ", ".join(repr(k) for k in list(known)[:5]) + (", ..." if len(known) > 5 else "")
        raise item.wrong(f"no entry has its {key} {value!r}; there are {some or 'none'}")
    return value


def _name(category: Item) -> str:
    name: str = category.get("name", str)
    if not name.strip():
        raise category.wrong("its name is empty")
    return name


def _labels(path: Path, names: Iterable[str]) -> dict[str, int]:
    labels = {name: label for label, name in enumerate(dict.fromkeys(names), start=1)}
    if len(labels) > MAX_CLASSES:
        raise SupportError(f"{path}: {len(labels)} annotated classes; an index mask holds at most {MAX_CLASSES}")
    return labels


def _image_path(folder: Path, image: Item, size_hw: tuple[int, int]) -> Path:
    name = image.get("file_name", str)
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise image.wrong(f"expected a file_name below the folder, got {name!r}")
    path = next((p for p in (folder / relative, folder / "images" / relative) if p.is_file()), None)
    if path is None:
        raise image.wrong(f"no file {name!r} in {folder} or in {folder / 'images'}")
    if image_size(path) != size_hw:
        height, width = image_size(path)
        raise image.wrong(
            f"{path} is {width} x {height} pixels as displayed, but the entry says {size_hw[1]} x {size_hw[0]}"
        )
    return path
