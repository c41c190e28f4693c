"""A folder that `kshot label` or `kshot predict` wrote: its manifest, index masks, objects and scores.

Other thresholds than the run's are decided on the scores that it saved (`--format scores`); nothing is predicted again.
A folder in the run's own, such as OUT/accepted, holds masks that a person accepted or corrected: see `_reviewed`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations import rle
from kshot.annotations.model import (
    BELOW,
    Annotation,
    AnnotationSet,
    LabelledImage,
    LazyImages,
    as_objects,
    check_labels,
    passing,
)
from kshot.annotations.pairing import ImageFinder
from kshot.annotations.shots import ShotList
from kshot.annotations.skipped import Skipped
from kshot.annotations.statistics import record_of
from kshot.errors import MaskError, SettingError, SupportError
from kshot.formats import _reviewed, coco, scores
from kshot.formats._reviewed import is_changed, reviewed_shots
from kshot.formats._run_files import is_run, read_run_files
from kshot.formats.base import ImageWriter, ScoredReader
from kshot.io.images import MAX_PIXELS, label_columns
from kshot.io.jsonl import read_object
from kshot.io.manifest import DONE, EMPTY, FAILED, MANIFEST, SETTINGS, ClassFacts, Record, stem_of
from kshot.io.paths import file_of
from kshot.io.rasters import MOST_PIXELS
from kshot.ops.object_shapes import ObjectShape
from kshot.types import IGNORE, Prediction, Shot, Thresholds, patch_pixels

ACCEPTED = _reviewed.ACCEPTED
OBJECTS = "instances"  # what the objects of an image are called among its outputs
SCORES = "scores"  # and its score map


class KshotRun(ScoredReader):
    """What a run found."""

    layout = (
        "kshot run: manifest.jsonl, settings.json and masks/, as `kshot label` writes them, or masks in a folder there"
    )

    def read_annotations(self, where: Path, images: Path | None = None) -> AnnotationSet | None:
        """The labels of a run; `images` when its images have moved. None without a manifest. Raises `SupportError`."""
        if not is_run(where):
            return None
        settings, records = read_run_files(where)
        return annotations_of_run(where, records, settings["classes"], images, skipped=Skipped())

    def read_objects(
        self, where: Path, images: Path | None = None, thresholds: Thresholds | None = None
    ) -> AnnotationSet | None:
        """The objects of a run, as many as its manifest counts where thresholds are its own.

        Raises `SupportError`, and `SettingError` for thresholds that ask for scores which the run did not save.
        """
        if not is_run(where):
            return None
        settings, records = read_run_files(where)
        if thresholds is None or thresholds == Thresholds():
            return as_objects(annotations_of_run(where, records, settings["classes"], images, skipped=Skipped()))
        return SavedLabels(where, settings, records, thresholds, images).annotations()

    def read_shots(self, folder: Path) -> list[Shot] | None:
        """The predicted masks as shots, of the images that the run read; None without a manifest.

        Of a folder in a run's own, such as OUT/accepted, the masks there that a person made. Raises `SupportError`.
        """
        reviewed = None if (folder / MANIFEST).is_file() else reviewed_shots(folder)
        return super().read_shots(folder) if reviewed is None else reviewed


class ObjectWriter(ImageWriter):
    """The objects of each image with a score each, as one COCO file: what a mask of classes cannot hold.

    Formats that are written at the end of a run find them again there.
    """

    name = OBJECTS
    folder = OBJECTS
    suffixes = (".json",)

    def __init__(self, method: str, least_pixels: Callable[[Sequence[int]], float] | None = None):
        """least_pixels: of what watershed splits off, in an image of this height and width."""
        self.method, self.least_pixels = method, least_pixels

    def write(self, prediction: Prediction, path: Path) -> None:
        """Write the objects of a prediction. Raises `SettingError` and `OutputError`."""
        self.write_counted(prediction, path)

    def write_counted(self, prediction: Prediction, path: Path) -> Counter[str]:
        """Write the objects of a prediction; returns how many of each class. Raises as `write` does."""
        least = self.least_pixels(prediction.size_hw) if self.least_pixels else 0.0
        image = LabelledImage(path.stem, prediction.size_hw, tuple(objects_of(prediction, self.method, least)))
        coco.save(AnnotationSet(prediction.classes, [image], objects=True), path)
        return Counter(one.label for one in image.annotations)


def objects_of(prediction: Prediction, method: str, least: float = 0.0) -> Iterator[Annotation]:
    """The objects of a prediction, as `Prediction.instances` gives them. Raises `SettingError`."""
    return map(Annotation.from_instance, prediction.instances(method, least))


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
    out: Path,
    records: Iterable[Record],
    classes: Sequence[str],
    images: Path | None = None,
    *,
    without: str = "",
    skipped: Skipped | None = None,
) -> AnnotationSet:
    """The labels of a run folder from its manifest records, in the order of the inputs' names.

    Failed images are left out, since without labels they would count as holding nothing; of several records of one
    input the last holds. without: leaves out images that have an output of this format already. A mask that does not
    fit its record raises `MaskError` when its image is asked for. skipped: takes the errors of images, which then fail
    alone.
    """
    last = {record["input"]: record for record in records}
    kept = [last[name] for name in sorted(last) if last[name]["status"] != FAILED]
    kept = [record for record in kept if without not in record.get("outputs", {})]
    finder = ImageFinder(out, images or images_of_run(out))

    def read(record: Record) -> LabelledImage:
        name = record["input"]
        height, width = (int(side) for side in record["size_hw"])
        written = record.get("outputs", {}).get(OBJECTS)
        found = read_objects(out / written, (height, width)) if written else _masks(out, record, classes)
        film = None if file_of(name) == name else finder.find(file_of(name))
        image = LabelledImage(name, (height, width), tuple(found), finder.find(name), stem_of(record), part_of=film)
        check_labels(image, classes)
        return image

    objects = bool(kept) and all(OBJECTS in record.get("outputs", {}) for record in kept)
    lazy = LazyImages(kept, read, skipped)
    return AnnotationSet(tuple(classes), lazy, objects, *([] if skipped is None else [skipped]))


@dataclass(frozen=True)
class SavedLabels:
    """The labels of a run under other thresholds, from the files that it left.

    With a score map an image is decided anew, as the run would have decided with these thresholds; those that are not
    given stay the run's. Without one, the mask's components (or the objects that were saved, each with its score) are
    judged. A mask that a person changed stays as it is. Raises `SettingError` where the scores are needed and missing.
    """

    out: Path
    settings: Mapping[str, Any]
    """The run's, of settings.json."""
    records: Sequence[Record]
    thresholds: Thresholds
    images: Path | None = None
    """Where the images are now, when they have moved."""
    skipped: Skipped = field(default_factory=Skipped)
    """Takes how many objects of the run do not pass, and which masks a person changed."""

    def __post_init__(self) -> None:
        for record in self.records:
            if record["status"] != FAILED and SCORES not in record["outputs"]:
                self._check_without_scores(record)

    def annotations(self) -> AnnotationSet:
        """All images with the objects that pass."""
        given = annotations_of_run(self.out, self.records, self.classes, self.images)
        by_name = {record["input"]: record for record in self.records}

        def read(image: LabelledImage) -> LabelledImage:
            return self._passing(image, by_name[image.name])

        return AnnotationSet(self.classes, LazyImages(list(given.images), read), objects=True, skipped=self.skipped)

    def labels_of(self, record: Record) -> NDArray[np.uint8]:
        """The labels (h, w) of an image that did not fail."""
        prediction = self._prediction(record)
        return self._image(record).labels(self.classes) if prediction is None else prediction.mask

    def record_of(self, record: Record) -> Record:
        """What the manifest would say of an image that did not fail.

        Without a score map, its scores and uncertainty stay those of the run.
        """
        prediction = self._prediction(record)
        if prediction is not None:
            counts = Counter(one.label for one in self._objects(prediction))
            return record | record_of(prediction, record["outputs"], counts)
        image = self._image(record)
        facts: dict[str, ClassFacts] = {
            name: {**about, "pixels": 0, "objects": 0} for name, about in record["classes"].items()
        }
        for one in image.annotations:
            if not one.ignore:
                facts[one.label]["pixels"] += one.area
                facts[one.label]["objects"] += 1
        found = any(about["pixels"] for about in facts.values())
        return record | {"status": DONE if found else EMPTY, "classes": facts}

    @property
    def classes(self) -> tuple[str, ...]:
        """The run's, in the order of their labels."""
        return tuple(self.settings["classes"])

    def _objects(self, prediction: Prediction) -> Iterator[Annotation]:
        export = self.settings.get("export")
        method = (export.get("instances") if isinstance(export, dict) else None) or "components"
        least = limits_of_run(self.settings, prediction.size_hw, self.thresholds).min_area
        return objects_of(prediction, method, float(least or 0))

    def _image(self, record: Record) -> LabelledImage:
        (given,) = annotations_of_run(self.out, [record], self.classes, self.images).images
        return self._passing(given, record)

    def _passing(self, image: LabelledImage, record: Record) -> LabelledImage:
        before = sum(about.get("objects", 0) for about in record["classes"].values())
        prediction = self._prediction(record)
        if prediction is not None:
            found = tuple(self._objects(prediction))
        elif self._is_changed(record):
            return replace(image, annotations=tuple(_masks(self.out, record, self.classes)))
        else:
            limits = limits_of_run(self.settings, image.size_hw, self.thresholds)
            least = limits.min_presence or 0.0
            there = [one for one in image.annotations if one.ignore or _presence(record, one.label) >= least]
            given = AnnotationSet(
                self.classes, [replace(image, annotations=tuple(there))], OBJECTS in record["outputs"]
            )
            (judged,) = passing(as_objects(given), replace(limits, min_presence=None)).images
            found = judged.annotations
        if len(found) < before:
            self.skipped.leave_out(BELOW, image.name, before - len(found))
        return replace(image, annotations=found)

    def _prediction(self, record: Record) -> Prediction | None:
        """What a run would have found; None without a score map, or where a person changed it. Raises `InputError`s."""
        if SCORES not in record["outputs"] or self._is_changed(record):
            return None
        path = self.out / record["outputs"][SCORES]
        planes, classes, present = scores.read(path)
        if classes != self.classes or list(planes.shape[1:]) != list(record["size_hw"]):
            raise MaskError(f"{path}: holds the scores of another image or of other classes; label it again")
        limits = limits_of_run(self.settings, planes.shape[1:], self.thresholds)
        least = 0.5 if limits.min_presence is None else limits.min_presence
        shapes = {name: ObjectShape(**facts) for name, facts in (self.settings.get("objects") or {}).items()}
        whole = Prediction.from_scores(planes, classes, present, presence_threshold=least, shapes=shapes)
        return whole.filtered(min_score=limits.min_score, min_area=limits.min_area or 0)

    def _is_changed(self, record: Record) -> bool:
        changed = "mask_sha256" in record and is_changed(self.out / record["mask"], record)
        if changed:
            self.skipped.note(f"{self.out / record['mask']}: changed by a person, so thresholds leave it as it is")
        return changed

    def _check_without_scores(self, record: Record) -> None:
        """Refuse thresholds that a mask alone does not decide: what is below the run's is not in it any more."""
        size_hw, wanted, option = record["size_hw"], self.thresholds, ""
        own, limits = (limits_of_run(self.settings, size_hw, given) for given in (Thresholds(), wanted))
        if (wanted.min_score and OBJECTS not in record["outputs"]) or limits.min_score < own.min_score:
            option = "min_score (--min-score)"
        if (limits.min_area or 0) < (own.min_area or 0):  # type: ignore[operator]
            option = "min_area (--min-area)"
        if wanted.min_presence is not None:
            gone = any(
                about["pixels"] and about["present"] < wanted.min_presence for about in record["classes"].values()
            )
            # The pixels of a class that goes belong to the next best one.
            lower = own.min_presence is None or wanted.min_presence < own.min_presence
            if lower or (gone and len(self.classes) > 1):
                option = "min_presence (--min-presence)"
        if option:
            raise SettingError(
                f"{self.out}: {option} needs the scores of {record['input']}, which this run did not save; label again "
                "with the format scores (--format scores)"
            )


def read_reviewed(place: Path) -> ShotList | None:
    """What a person made of a run's masks: `_reviewed.reviewed_shots` of a run or of a folder of masks in one."""
    return reviewed_shots(place)


def limits_of_run(settings: Mapping[str, Any], size_hw: Sequence[int], wanted: Thresholds) -> Thresholds:
    """What is kept of an image of a run: `wanted`, and what it leaves open as the run had it, the area in pixels.

    settings: the run's; what somebody removed from them is unknown. Raises `SettingError` where they are damaged.
    """
    given, known = settings.get("thresholds"), settings.get("presence_threshold")
    tiling, spec = settings.get("tiling"), settings.get("backbone")
    try:
        own = Thresholds(**(given or {}))
        tile = tiling["tile"] if tiling else None
        patch_area = patch_pixels(size_hw, spec["size"], spec["patch"], tile) if isinstance(spec, dict) else 0.0
    except (TypeError, KeyError, ZeroDivisionError) as error:
        raise SettingError(f"{SETTINGS} of the run is damaged ({error}); label again") from error
    area = wanted if wanted.min_area is not None else own
    return Thresholds(
        wanted.min_presence if wanted.min_presence is not None else known if isinstance(known, int | float) else None,
        wanted.min_score or own.min_score,
        area.least_pixels(size_hw, patch_area),
    )


def _presence(record: Record, name: str) -> float:
    return record["classes"][name]["present"]


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


def images_of_run(out: Path) -> Path | None:
    """The folder that a run read its images from."""
    images = read_object(out / SETTINGS).get("images")
    return Path(images) if isinstance(images, str) else None


FORMAT = KshotRun()
