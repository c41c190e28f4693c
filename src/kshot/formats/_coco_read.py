"""Read supports from a COCO JSON, which anybody may have written: every id, size and number is checked."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from kshot.errors import SupportError
from kshot.formats._coco_shapes import Item, box, has_shape, shape
from kshot.formats._pairs import visible
from kshot.formats.images import image_size
from kshot.types import IGNORE, MAX_CLASSES, Shot

_KEYS = {"images", "annotations", "categories"}


def read_shots(folder: Path) -> list[Shot] | None:
    """Shots of the annotated images in the folder's COCO file; None when there is none. Raises `SupportError`."""
    found = list(_coco_files(folder))
    if not found:
        return None
    if len(found) > 1:
        raise SupportError(f"{folder}: several COCO files ({', '.join(str(p) for p, _ in found)}); keep one")
    path, data = found[0]
    images = _by_id(path, data, "images", "image")
    names = {key: _name(item) for key, item in _by_id(path, data, "categories", "category").items()}
    marks: dict[Any, list[Item]] = {key: [] for key in images}
    for item in _items(path, data, "annotations", "annotation"):
        marks[_known(item, "image_id", images)].append(item)
        _known(item, "category_id", names)
    used = {item.values["category_id"] for items in marks.values() for item in items}
    labels = _labels(path, (name for key, name in names.items() if key in used))
    shots: list[Shot] = []
    for key, image in images.items():
        named = [(item, names[item.values["category_id"]]) for item in marks[key]]
        if named:
            shots += _shots_of(folder, image, named, labels)
    return shots


def _shots_of(folder: Path, image: Item, named: list[tuple[Item, str]], labels: Mapping[str, int]) -> list[Shot]:
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


def _painted(named: list[tuple[Item, str]], labels: Mapping[str, int], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
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


def _coco_files(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for place in (folder, folder / "annotations"):
        for path in visible(place):
            if path.suffix.lower() == ".json" and path.is_file():
                data = _json(path)
                if isinstance(data, dict) and data.keys() >= _KEYS:
                    yield path, data


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SupportError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise SupportError(f"{path}: not valid JSON ({error})") from error


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
