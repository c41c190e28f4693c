"""A folder that `kshot label` or `kshot predict` wrote: its manifest, index masks and objects.

A folder in the run's own, such as OUT/accepted, holds masks that a person accepted or corrected, by the names that the
run's masks have.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations import rle
from kshot.annotations.model import Annotation, AnnotationSet, LabelledImage, LazyImages
from kshot.annotations.pairing import ImageFinder
from kshot.errors import MaskError, SupportError
from kshot.formats import coco
from kshot.formats.base import AnnotationReader, ImageWriter
from kshot.formats.index_masks import LabelNames, shots_of_masks
from kshot.io.images import MAX_PIXELS, image_size, label_columns
from kshot.io.jsonl import read_object
from kshot.io.manifest import FAILED, MANIFEST, SETTINGS, Record, stem_of
from kshot.io.names import leads_out
from kshot.io.pages_and_frames import read_images
from kshot.io.paths import file_of, walk
from kshot.io.rasters import MOST_PIXELS, BandSelection
from kshot.ops.components import split
from kshot.types import IGNORE, ImageLike, Prediction, Shot, check_same_size

OBJECTS = "instances"  # what the objects of an image are called among its outputs


class KshotRun(AnnotationReader):
    """What a run found."""

    layout = (
        "kshot run: manifest.jsonl, settings.json and masks/, as `kshot label` writes them, or masks in a folder there"
    )

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """The labels of a run; `images` when its images have moved. None without a manifest. Raises `SupportError`."""
        if not _is_run(where):
            return None
        settings, lines = _read(where)
        records = [_record(where, line) for line in lines]
        classes = settings.get("classes") if isinstance(settings, dict) else None
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise SupportError(f"{where / SETTINGS}: expected classes as a list of names, got {short(classes)}")
        return annotations_of_run(where, records, classes, images)

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """The predicted masks as shots, of the images that the run read; None without a manifest.

        Of a folder in a run's own, such as OUT/accepted, the masks that lie there. Raises `SupportError`.
        """
        accepted = None if (folder / MANIFEST).is_file() else _accepted(folder)
        return super().read_shots(folder) if accepted is None else accepted


class ObjectWriter(ImageWriter):
    """The objects of each image with a score each, as one COCO file: what a mask of classes cannot hold.

    Formats that are written at the end of a run find them again there.
    """

    name = OBJECTS
    folder = OBJECTS
    suffixes = (".json",)

    def __init__(self, method: str):
        self.method = method

    def write(self, prediction: Prediction, path: Path) -> None:
        """Write the objects of a prediction. Raises `SettingError` and `OutputError`."""
        image = LabelledImage(path.stem, prediction.size_hw, tuple(objects_of(prediction, self.method)))
        coco.save(AnnotationSet(prediction.classes, [image], objects=True), path)


def objects_of(prediction: Prediction, method: str) -> Iterator[Annotation]:
    """The objects of each class; score: the mean score of its class over its pixels.

    method: one of `ops.components.METHODS`. Raises `SettingError`.
    """
    for index, name in enumerate(prediction.classes, start=1):
        score = prediction.scores[index]
        for place, crop in split(prediction.mask == index, score, method):
            mean = float(np.clip(score[place][crop].mean(), 0, 1))
            yield Annotation(name, rle.encode_crop(crop, place, prediction.size_hw), mean)


def read_objects(path: Path, size_hw: tuple[int, ...]) -> tuple[Annotation, ...]:
    """The objects of one image. Raises `SupportError` when they are missing, damaged or of another size."""
    # `path` as the folder of images: without looking for the image.
    found = coco.FORMAT.read_annotations(path, images=path) if path.is_file() else None
    images = list(found.images) if found else []
    if found:
        found.skipped.raise_first()
    if len(images) != 1 or images[0].size_hw != tuple(size_hw):
        raise SupportError(f"{path}: not the objects of an image of {size_hw[1]} x {size_hw[0]} pixels; run it again")
    return images[0].annotations


def annotations_of_run(
    out: Path, records: Iterable[Record], classes: Sequence[str], images: Path | None = None, *, without: str = ""
) -> AnnotationSet:
    """The labels of a run folder from its manifest records, in the order of the inputs' names.

    Failed images are left out, since without labels they would count as holding nothing; of several records of one
    input the last holds. without: leaves out images that have an output of this format already. A mask that does not
    fit its record raises `MaskError` when its image is asked for.
    """
    last = {record["input"]: record for record in records}
    kept = [last[name] for name in sorted(last) if last[name]["status"] != FAILED]
    kept = [record for record in kept if without not in record.get("outputs", {})]
    finder = ImageFinder(out, images or _images_of(out))

    def read(record: Record) -> LabelledImage:
        name = record["input"]
        height, width = (int(side) for side in record["size_hw"])
        written = record.get("outputs", {}).get(OBJECTS)
        found = read_objects(out / written, (height, width)) if written else _masks(out, record, classes)
        return LabelledImage(name, (height, width), tuple(found), finder.find(name), stem_of(record))

    objects = bool(kept) and all(OBJECTS in record.get("outputs", {}) for record in kept)
    return AnnotationSet(tuple(classes), LazyImages(kept, read), objects)


def _masks(out: Path, record: Record, classes: Sequence[str]) -> Iterator[Annotation]:
    """What a mask marks, class by class; column by column, since it may be larger than any image read whole."""
    path, (height, width) = out / record["mask"], (int(side) for side in record["size_hw"])
    found: dict[int, list[NDArray[np.int64]]] = {}
    for left, columns in label_columns(path, (height, width), max(MAX_PIXELS, min(height * width, MOST_PIXELS))):
        for label in set(np.flatnonzero(np.bincount(columns.ravel())).tolist()) - {0}:
            found.setdefault(label, []).append(rle.runs(columns == label, (0, left), (height, width)))
    wrong = sorted(label for label in found if len(classes) < label != IGNORE)
    if wrong:
        raise MaskError(f"{path}: holds the label {wrong[-1]}, expected 0..{len(classes)} for {len(classes)} classes")
    for label in sorted(found):
        encoded = rle.encode_runs(found[label], (height, width))
        if label == IGNORE:
            yield Annotation("", encoded, ignore=True)
        else:
            name = classes[label - 1]
            yield Annotation(name, encoded, float(record["classes"][name]["score"]))


def _is_run(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and (folder / SETTINGS).is_file()


def _read(run: Path) -> tuple[Any, list[Any]]:
    """What settings.json and the lines of manifest.jsonl hold. Raises `SupportError`."""
    try:
        settings = json.loads((run / SETTINGS).read_text(encoding="utf-8"))
        return settings, [json.loads(line) for line in (run / MANIFEST).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise SupportError(f"{run}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(run, error) from error


def _damaged(run: Path, error: Exception) -> SupportError:
    return SupportError(f"{run}: {MANIFEST} or {SETTINGS} is damaged ({error}); run it again")


def _images_of(out: Path) -> Path | None:
    """The folder that a run read its images from."""
    images = read_object(out / SETTINGS).get("images")
    return Path(images) if isinstance(images, str) else None


def _record(where: Path, record: Any) -> Record:
    """A line of a manifest that somebody may have edited, with the keys and kinds that reading it needs."""
    try:
        fine = isinstance(record["input"], str) and isinstance(record["status"], str)
        fine = fine and not leads_out(record["input"])
        if fine and record["status"] != FAILED:
            scores = [about["score"] for about in record["classes"].values()]
            paths = [record["mask"], *record["outputs"].values()]
            fine &= all(isinstance(path, str) and not leads_out(path) for path in paths)
            fine &= len(record["size_hw"]) == 2 and all(type(score) in (int, float) for score in scores)
    except (KeyError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise SupportError(f"{where / MANIFEST}: a line that is no record of a run: {short(record)}; run it again")
    kept: Record = record
    return kept


def _accepted(folder: Path) -> list[Shot] | None:
    """Shots of the masks in a folder of a run, such as OUT/accepted/a.png; None when it is not one.

    A page or frame comes as its image, with the run's bands. Raises `SupportError` for a mask of no image of the run,
    or of one that is gone, `MaskError` and `ImageReadError`.
    """
    run = folder.parent
    masks = sorted(walk(folder, lambda path: path.suffix.lower() == ".png" and path.name[0] != "."))
    if not masks or not _is_run(run):
        return None
    settings, records = _read(run)
    try:
        inputs = {PurePosixPath(*PurePosixPath(r["mask"]).parts[1:]): r["input"] for r in records if "mask" in r}
        classes, finder = [str(name) for name in settings["classes"]], ImageFinder(run, Path(settings["images"]))
        selection = BandSelection.of(**settings.get("look", {"bands": None, "stretch": None}))
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(run, error) from error
    named = {mask: _name_of(mask, folder, inputs) for mask in masks}
    pairs = _pairs(named, {name: _file_of(mask, name, finder) for mask, name in named.items()}, selection)
    # A person who empties a mask says that what was found there is none of it.
    return shots_of_masks(pairs, LabelNames(dict(enumerate(classes, 1))), empty=True)


def _pairs(
    named: dict[Path, str], files: dict[str, Path], selection: BandSelection
) -> Iterator[tuple[ImageLike, Path]]:
    """Masks with their images, which are paths, or arrays of pages and frames."""
    several = {name: path for name, path in files.items() if file_of(name) != name}
    pages_and_frames = dict(read_images(several, selection))
    for mask, name in named.items():
        if name in pages_and_frames:
            check_same_size(image_size(mask), pages_and_frames[name].shape[:2], f"{mask}, of {name},")
        yield pages_and_frames.get(name, files[name]), mask


def _name_of(mask: Path, folder: Path, inputs: dict[PurePosixPath, str]) -> str:
    name = inputs.get(PurePosixPath(mask.relative_to(folder).as_posix()))
    if name is None:
        raise SupportError(f"{mask}: no image of the run in {folder.parent} has a mask of this name; leave it out")
    return name


def _file_of(mask: Path, name: str, finder: ImageFinder) -> Path:
    path = finder.find(file_of(name))
    if path is None:
        raise SupportError(f"{mask}: its image {file_of(name)} is no longer where the run read it; put it back")
    return path


FORMAT = KshotRun()
