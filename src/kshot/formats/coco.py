"""COCO JSON: one annotation per object of an image, as compressed RLE or as polygons, with its score.

Anybody may have written such a file: every id, size and number is checked.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

from kshot.annotations import rle
from kshot.annotations.checked_json import (
    Entry,
    check_near_image,
    documents,
    each_alone,
    filled,
    numbers,
    read_json,
    score_of,
    size_of,
    the_only,
)
from kshot.annotations.model import DEFAULT_EXPORT, Annotation, AnnotationSet, Export, ImageBuilder, LabelledImage
from kshot.annotations.pairing import ImageFinder
from kshot.annotations.rle import Rle
from kshot.annotations.shots import shots_of
from kshot.annotations.skipped import Skipped
from kshot.errors import DamagedFilesError, InputError, SupportError, plural
from kshot.formats.base import AnnotationReader, AnnotationWriter, PredictionWriter
from kshot.io.atomic import write_text
from kshot.io.images import image_size
from kshot.io.paths import visible
from kshot.io.stems import unique_stems
from kshot.objects import Instance
from kshot.ops.polygons import polygons, turned
from kshot.types import MAX_CLASSES, Prediction, Shot

_KEYS = {"images", "annotations", "categories"}
_SUBSETS = {"train", "valid", "val", "validation", "test"}
_LEAST = 6  # numbers of a polygon


class Coco(AnnotationReader, AnnotationWriter, PredictionWriter):
    """One .json for a folder of images, or for one prediction."""

    layout = (
        "COCO: one COCO .json with its images in the folder, or in annotations/, or in each of train/, valid/, test/"
    )
    output = "coco.json"
    holds = frozenset({"boxes", "scores"})
    suffixes = (".json",)

    def write(self, prediction: Prediction, path: Path) -> None:
        """Write one prediction with an annotation per connected component, and its mean score.

        The image is called by the path's stem, as a prediction does not know its file. Raises `OutputError`.
        """
        document = document_of(prediction.classes, prediction.instances("components"), path.stem, prediction.size_hw)
        write_text(path, json.dumps(document, allow_nan=False) + "\n")

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/coco.json; polygons lose by their tolerance, RLE loses nothing. Returns its path."""
        save(annotations, out / self.output, export)
        return out / self.output

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """The objects of a COCO file, or of the one in a folder; images without any are kept."""
        file = _read(where)
        if file is None:
            return None
        finders = {image.folder: _finder(where, image, images) for image in file.images}
        places: dict[str, tuple[_Image, Path | None]] = {}
        for image in file.images:
            with file.skipped.alone():
                name, path = _place(image, finders[image.folder])
                if name in places:
                    raise image.entry.wrong(f"its file_name says {name}, as another image's does; keep one of them")
                places[name] = image, path
        stems, read = unique_stems(places), []
        for name, (image, path) in places.items():
            with file.skipped.alone():
                read.append(_labelled(image, path, name, stems[name], file.skipped))
        classes = file.classes if len(file.classes) <= MAX_CLASSES else file.used
        return AnnotationSet(classes, read, objects=True, skipped=file.skipped)

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """Shots of the annotated images: one mask each, with a label for every class that has annotations in the file.

        Crowds become 255, ignore; where instances overlap the smaller is on top. Boxes without a segmentation become
        box shots, one per class, and 255 in the masks of their image. An image that is missing is left out;
        `SupportError` says so when no other is left.
        """
        file = _read(folder)
        if file is None:
            return None
        finders = {image.folder: _finder(folder, image, None) for image in file.images}
        read = []
        for image in file.images:
            if image.annotations:
                with file.skipped.alone():
                    read.append(_of_support(image, finders[image.folder], file.skipped))
        return shots_of(AnnotationSet(file.used, read, skipped=file.skipped))


def save(annotations: AnnotationSet, path: Path, export: Export = DEFAULT_EXPORT) -> None:
    """Write labels as one file. Raises `OutputError`."""
    write_text(path, json.dumps(_document(annotations, export), allow_nan=False) + "\n")


def document_of(
    classes: tuple[str, ...], instances: Iterable[Instance], file_name: str, size_hw: tuple[int, int]
) -> dict[str, Any]:
    """The objects of one image as a COCO data set."""
    image = LabelledImage(file_name, size_hw, tuple(map(Annotation.from_instance, instances)))
    return _document(AnnotationSet(classes, [image], objects=True), DEFAULT_EXPORT)


def _document(annotations: AnnotationSet, export: Export) -> dict[str, Any]:
    """Labels as COCO has them; what is neither of a class nor a crowd of it is left out."""
    ids = {name: index for index, name in enumerate(annotations.classes, start=1)}
    images: list[dict[str, Any]] = []
    written: list[dict[str, Any]] = []
    for image_id, image in enumerate(annotations.images, start=1):
        height, width = image.size_hw
        images.append({"id": image_id, "file_name": image.name, "height": height, "width": width})
        for one in image.annotations:
            if one.label in ids:
                named = {"id": len(written) + 1, "image_id": image_id, "category_id": ids[one.label]}
                written.append(named | _written(one, export))
        for name, boxes in image.prompts.boxes.items():
            for box in boxes if name in ids else ():
                named = {"id": len(written) + 1, "image_id": image_id, "category_id": ids[name]}
                written.append(named | _box(box))
    return {
        "info": {"description": "Segmentation masks written by kshot", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": written,
        "categories": [{"id": index, "name": name, "supercategory": ""} for name, index in ids.items()],
    }


def _written(annotation: Annotation, export: Export) -> dict[str, Any]:
    segmentation: Any = {"size": list(annotation.rle["size"]), "counts": annotation.rle["counts"].decode("ascii")}
    if export.polygons and not annotation.ignore:  # a crowd is a run length by COCO's own rule
        segmentation = [corners.ravel().tolist() for corners in polygons(annotation.mask, export.tolerance)]
    shaped = {
        "segmentation": segmentation,
        "area": annotation.area,
        "bbox": rle.box_xywh(annotation.rle),
        "iscrowd": int(annotation.ignore),
    }
    return shaped if annotation.score is None else shaped | {"score": round(annotation.score, 6)}


def _box(corners: Sequence[float]) -> dict[str, Any]:
    x0, y0, x1, y1 = corners
    width, height = x1 - x0, y1 - y0
    return {"segmentation": [], "area": width * height, "bbox": [x0, y0, width, height], "iscrowd": 0}


@dataclass(frozen=True)
class _Image:
    entry: Entry
    folder: Path | None
    """The folder of its subset, such as train/; None where all images are in one set."""
    annotations: list[tuple[Entry, str]]
    """Each with the name of its class."""

    @property
    def file_name(self) -> str:
        name: str = self.entry.get("file_name", str)
        return name

    @property
    def subset(self) -> str:
        return self.folder.name if self.folder else ""

    def below(self, name: str) -> str:
        """A name within its subset as one within all of them."""
        return f"{self.subset}/{name}" if self.folder else name


@dataclass(frozen=True)
class _File:
    """A COCO file whose ids are known to fit."""

    classes: tuple[str, ...]
    used: tuple[str, ...]
    """The classes that some annotation has."""
    images: list[_Image]
    skipped: Skipped


def _read(where: Path) -> _File | None:
    skipped, errors = Skipped(), list[InputError]()

    def only(folder: Path) -> tuple[Path, dict[str, Any]] | None:
        try:
            return the_only(folder, each_alone(documents(folder, ".json"), _coco, skipped), "COCO files")
        except DamagedFilesError as error:
            errors.extend(error.errors)
            return None

    found = only(where)
    if found is not None:
        return _file([(None, *found)], skipped)
    subsets = (path for path in visible(where) if path.is_dir() and path.name.lower() in _SUBSETS)
    read = [(folder, *one) for folder in subsets if (one := only(folder)) is not None]
    if errors and not read:
        raise DamagedFilesError(errors)
    for error in errors:
        skipped.fail(error)
    return _file(read, skipped) if read else None


def _file(read: Sequence[tuple[Path | None, Path, dict[str, Any]]], skipped: Skipped) -> _File:
    """One or more files as one: classes of one name are one class."""
    images = list[_Image]()
    classes, used = dict[str, None](), dict[str, None]()
    for folder, path, data in read:
        entries = _by_id(path, data, "images", "image")
        names = {key: _name(entry) for key, entry in _by_id(path, data, "categories", "category").items()}
        of_file = {key: _Image(entry, folder, []) for key, entry in entries.items()}
        _refuse_twins(path, of_file.values())
        seen = set()
        for entry in _objects(path, data, skipped):
            with skipped.alone():
                image, category = _known(entry, "image_id", of_file), _known(entry, "category_id", names)
                of_file[image].annotations.append((entry, names[category]))
                seen.add(category)
        classes |= dict.fromkeys(names.values())
        used |= dict.fromkeys(name for key, name in names.items() if key in seen)
        images += of_file.values()
    if len(used) > MAX_CLASSES:
        raise SupportError(f"{read[0][1]}: {len(used)} annotated classes; an index mask holds at most {MAX_CLASSES}")
    return _File(tuple(classes), tuple(used), images, skipped)


def _refuse_twins(path: Path, images: Iterable[_Image]) -> None:
    counts = Counter(name for image in images if isinstance(name := image.entry.values.get("file_name"), str))
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise SupportError(f"{path}: two images of one file_name, {repeated[0]!r}; give each image a name of its own")


def _objects(path: Path, data: Mapping[str, Any], skipped: Skipped) -> list[Entry]:
    """The annotations; where all are crowds, as some tools write every brushed mask, they count as objects."""
    entries = _entries(path, data, "annotations", "annotation")
    if entries and all("segments_info" in entry.values for entry in entries):
        raise SupportError(f"{path}: COCO panoptic, which is not read; export the objects as COCO instances")
    if entries and all(_has_segmentation(entry) and entry.values.get("iscrowd") == 1 for entry in entries):
        skipped.note(f"{path}: every annotation is marked iscrowd; they are read as objects")
        return [Entry(entry.called, entry.values | {"iscrowd": 0}) for entry in entries]
    return entries


def _place(image: _Image, finder: ImageFinder) -> tuple[str, Path | None]:
    """The name of an image below the folder, and its path where it is there. Raises `SupportError`."""
    path = finder.find(image.file_name)
    try:
        return image.below(finder.name_of(image.file_name, path)), path
    except SupportError as error:
        raise image.entry.wrong(f"its file_name: {error}") from error


def _labelled(image: _Image, path: Path | None, name: str, stem: str, skipped: Skipped) -> LabelledImage:
    builder = ImageBuilder(_size(image.entry, path))
    for entry, label in image.annotations:
        with skipped.alone():
            if _has_segmentation(entry):
                mask, crowd = _mask(entry, builder.size_hw, skipped), bool(entry.values.get("iscrowd"))
                builder.add(Annotation(label, mask, score_of(entry), ignore=crowd))
            else:
                builder.add_rectangle(entry, label, _turned(entry, _corners(entry)))
                if score_of(entry) is not None:
                    skipped.leave_out("score of a box", entry.called)
            if entry.values.get("keypoints"):
                skipped.leave_out("set of key points", entry.called)
    return builder.build(name, path, stem)


def _finder(where: Path, image: _Image, images: Path | None) -> ImageFinder:
    """Finds the images of one subset, in the folder of that name where there is one."""
    below = images and images / image.subset
    return ImageFinder(image.folder or where, below if below and below.is_dir() else images)


def _size(entry: Entry, path: Path | None) -> tuple[int, int]:
    if path is not None and entry.values.get("height") is None and entry.values.get("width") is None:
        return image_size(path)
    return size_of(entry, ("height", "width"), path)


def _mask(entry: Entry, size_hw: tuple[int, int], skipped: Skipped) -> Rle:
    """The segmentation without polygons of less than three corners, which web tools leave behind."""
    parts = entry.values["segmentation"]
    if isinstance(parts, list) and all(isinstance(part, list) for part in parts):
        kept = [part for part in parts if len(part) >= _LEAST]
        if 0 < len(kept) < len(parts):
            skipped.fail(entry.wrong(f"{plural(len(parts) - len(kept), 'polygon')} of less than three corners"))
            entry = Entry(entry.called, entry.values | {"segmentation": kept})
    return segmentation_rle(entry, size_hw)


def _of_support(image: _Image, finder: ImageFinder, skipped: Skipped) -> LabelledImage:
    name, path = _place(image, finder)
    if path is None:
        raise image.entry.wrong(f"no file {image.file_name!r} in {' or in '.join(map(str, finder.places))}")
    return _labelled(image, path, name, "", skipped)


def _coco(path: Path) -> dict[str, Any] | None:
    data = read_json(path)
    return data if isinstance(data, dict) and data.keys() >= _KEYS else None


def _entries(path: Path, data: Mapping[str, Any], key: str, kind: str) -> list[Entry]:
    values = data[key]
    if not isinstance(values, list):
        raise SupportError(f"{path}: expected {key!r} as a list, got {type(values).__name__}")
    entries = []
    for place, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise SupportError(f"{path}: expected objects in {key!r}, got {short(value)} at place {place}")
        called = short(value["id"]) if "id" in value else f"at place {place}"
        entries.append(Entry(f"{path}: {kind} {called}", value))
    return entries


def _by_id(path: Path, data: Mapping[str, Any], key: str, kind: str) -> dict[int | str, Entry]:
    found: dict[int | str, Entry] = {}
    for entry in _entries(path, data, key, kind):
        if entry.get("id", int, str) in found:
            raise entry.wrong(f"this id occurs twice in {key!r}")
        found[entry.values["id"]] = entry
    return found


def _known(entry: Entry, key: str, known: Mapping[Any, Any]) -> Any:
    value = entry.get(key, int, str)
    if value not in known:
        some = ", ".join(repr(k) for k in list(known)[:5]) + (", ..." if len(known) > 5 else "")
        raise entry.wrong(f"no entry has its {key} {value!r}; there are {some or 'none'}")
    return value


def _name(category: Entry) -> str:
    name: str = category.get("name", str)
    if not name.strip():
        raise category.wrong("its name is empty")
    return name


def _has_segmentation(entry: Entry) -> bool:
    """Whether the annotation says more than a box."""
    return entry.values.get("segmentation") not in (None, [], {}, "")


def _corners(entry: Entry) -> list[list[float]]:
    """Two corners of its bbox (x, y, width, height), in pixels. Raises `SupportError`."""
    values = numbers(entry, entry.get("bbox", list), "bbox")
    if len(values) != 4 or values[2] <= 0 or values[3] <= 0:
        raise entry.wrong(f"expected bbox as x, y, width, height with a positive size, got {values}")
    x, y, width, height = values
    return [[x, y], [x + width, y + height]]


def _turned(entry: Entry, corners: list[list[float]]) -> list[list[float]]:
    """The four corners of a box, turned about its centre where CVAT's export says a rotation."""
    attributes = entry.values.get("attributes")
    given = attributes.get("rotation") if isinstance(attributes, dict) else None
    rotation = 0.0 if given is None else numbers(entry, [given], "rotation")[0]
    (x0, y0), (x1, y1) = corners
    return turned([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], [(x0 + x1) / 2, (y0 + y1) / 2], rotation)


def segmentation_rle(entry: Entry, size_hw: tuple[int, int]) -> Rle:
    """The segmentation of an annotation, polygons or RLE of either kind, as a compressed RLE of the image's size.

    Raises `SupportError`, also for a bbox of negative size.
    """
    if entry.values.get("bbox") not in (None, []):
        sides = numbers(entry, entry.get("bbox", list), "bbox")
        if len(sides) != 4 or min(sides[2:]) < 0:
            raise entry.wrong(f"expected bbox as x, y, width, height, none of the sizes negative, got {sides}")
    if not _has_segmentation(entry):
        raise entry.wrong("it has no segmentation")
    segmentation = entry.get("segmentation", list, dict)
    if isinstance(segmentation, dict):
        return _from_counts(entry, segmentation, size_hw)
    outlines = segmentation if isinstance(segmentation[0], list) else [segmentation]
    return rle.merge([filled(entry, _polygon(entry, outline, size_hw), size_hw) for outline in outlines])


def _polygon(entry: Entry, outline: Any, size_hw: tuple[int, int]) -> list[list[float]]:
    values = numbers(entry, outline, "polygon")
    if len(values) < _LEAST or len(values) % 2:
        raise entry.wrong(f"expected a polygon of at least three x, y corners, got {len(values)} numbers")
    points = [[x, y] for x, y in zip(values[::2], values[1::2], strict=True)]
    check_near_image(entry, points, size_hw)
    return points


def _from_counts(entry: Entry, segmentation: dict[str, Any], size_hw: tuple[int, int]) -> Rle:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(size_hw):
        raise entry.wrong(f"expected an RLE of size {list(size_hw)} (height, width) like its image, got {short(size)}")
    try:
        runs = rle.decode_counts(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, list) or any(type(run) is not int or run < 0 for run in runs):
            raise ValueError(f"expected RLE counts as text or a list of whole numbers, got {short(counts)}")
        return rle.encode_counts(runs, size_hw)
    except ValueError as error:
        raise entry.wrong(str(error)) from error


FORMAT = Coco()
