"""Labels of a folder of images, whatever they were read from: what readers return and writers take.

Masks travel as COCO's run lengths: small enough to keep those of a whole folder, and one decoder for all.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kshot.annotations import rle
from kshot.annotations.checked_json import Entry, filled, polygon
from kshot.annotations.rle import Rle
from kshot.annotations.skipped import Skipped
from kshot.errors import InputError, SettingError, SupportError
from kshot.io.atomic import atomic_path, place_image
from kshot.io.images import image_size
from kshot.io.names import below
from kshot.objects import Instance
from kshot.ops.components import check_method, split
from kshot.ops.polygons import is_upright
from kshot.types import IGNORE, MAX_CLASSES, Thresholds, check_same_size

T = TypeVar("T")
Rows = list[list[float]]


@dataclass(frozen=True)
class Export:
    """How annotations are written, for the formats that leave a choice. Raises `SettingError`."""

    instances: str | None = None
    """"components", "watershed" or "learned" splits masks into objects; None keeps them as they are."""
    polygons: bool = False
    """Polygons instead of masks."""
    tolerance: float = 0.0
    """How far, in pixels, a polygon may leave the mask's edge; 0 follows every pixel."""
    copy_images: bool = False
    """Copies of the images where a layout holds them, instead of links."""

    def __post_init__(self) -> None:
        if self.instances is not None:
            check_method(self.instances)


DEFAULT_EXPORT = Export()
BELOW = "objects below the thresholds"
"""What they are called among what was left out."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """The pixels of one object, or of a whole class in an image."""

    label: str
    """Name of the class; "" where `ignore` holds for no class in particular."""
    rle: Rle
    """The mask as COCO's compressed run lengths, {"size": [h, w], "counts": bytes}."""
    score: float | None = None
    """0..1 where it is known."""
    ignore: bool = False
    """Pixels that nobody decided on; with a label they are a crowd of that class."""
    order: int = 0
    """Where annotations overlap, the one of the higher order is on top; of one order the smaller is."""

    @classmethod
    def from_mask(
        cls, mask: NDArray[Any], label: str, score: float | None = None, *, ignore: bool = False
    ) -> "Annotation":
        """The annotation of a mask (h, w), everything but zero."""
        return cls(label, rle.encode(mask), score, ignore)

    @classmethod
    def from_instance(cls, one: Instance) -> "Annotation":
        """The annotation of an object of a prediction."""
        return cls(one.label, rle.encode_crop(one.crop, one.place, one.size_hw), one.score)

    @property
    def instance(self) -> Instance:
        """Itself as an object of an image."""
        left, top, crop = self.crop
        place = slice(top, top + crop.shape[0]), slice(left, left + crop.shape[1])
        height, width = self.rle["size"]
        return Instance(self.label, crop, place, (height, width), self.score)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(h, w) truth values."""
        return rle.decode(self.rle)

    @property
    def area(self) -> int:
        """Its pixels."""
        return rle.area(self.rle)

    @property
    def crop(self) -> tuple[int, int, NDArray[np.bool_]]:
        """(left, top, mask (h, w)) of the smallest box around it."""
        return rle.decode_crop(self.rle)


@dataclass
class Prompts:
    """Marks that show objects of an image without outlining them, by class, in pixels."""

    boxes: dict[str, Rows] = field(default_factory=dict)
    """[x0, y0, x1, y1] each."""
    points: dict[str, Rows] = field(default_factory=dict)
    """[x, y] each."""
    scribbles: dict[str, list[Rows]] = field(default_factory=dict)
    """Lines of [x, y] each."""

    def __bool__(self) -> bool:
        return bool(self.boxes or self.points or self.scribbles)

    def add_box(self, entry: Entry, label: str, corners: Rows) -> None:
        """Add the upright box around some corners. Raises `SupportError` when it has no area."""
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        if min(xs) == max(xs) or min(ys) == max(ys):
            raise entry.wrong("its box has no area")
        self.boxes.setdefault(label, []).append([min(xs), min(ys), max(xs), max(ys)])

    def add_points(self, label: str, points: Rows) -> None:
        """Add some points of a class."""
        self.points.setdefault(label, []).extend(points)

    def add_scribble(self, label: str, line: Rows) -> None:
        """Add one line of a class."""
        self.scribbles.setdefault(label, []).append(line)


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """What is known of one image."""

    name: str
    """Its path below the folder of images, with suffix."""
    size_hw: tuple[int, int]
    """As displayed, in pixels."""
    annotations: tuple[Annotation, ...] = ()
    """Those of at least one pixel; others are dropped."""
    path: Path | None = None
    """Where it is; None when it was not found."""
    stem: str = ""
    """What its results are called, unique in the folder; by default the name without suffix."""
    prompts: Prompts = field(default_factory=Prompts)
    """Boxes, points and scribbles of objects without outlines."""
    data: bytes | None = None
    """The encoded image, where its annotation file holds it and no file was found."""
    part_of: Path | None = None
    """Where the video is that it is a frame of, or the TIFF that it is a page of."""

    def __post_init__(self) -> None:
        # A polygon thinner than a pixel covers none; formats could not write the box of such an empty mask.
        object.__setattr__(self, "annotations", tuple(one for one in self.annotations if one.area))
        if not self.stem:
            object.__setattr__(self, "stem", PurePosixPath(self.name).with_suffix("").as_posix())

    def labels(self, classes: Sequence[str]) -> NDArray[np.uint8]:
        """(h, w) labels, 1..N = `classes`, 255 = ignore, which lies below the others; see `Annotation.order`."""
        return paint(
            ((one.rle, IGNORE if one.ignore else classes.index(one.label) + 1) for one in self.stacked),
            self.size_hw,
            by_area=False,
        )

    def numbers(self) -> NDArray[np.int32]:
        """(h, w): the number, from 1, of the annotation on top of each pixel; 0 where none or an ignored one is."""
        numbers = np.zeros(self.size_hw, np.int32)
        for number, one in enumerate(self.stacked, start=1):
            left, top, crop = one.crop
            numbers[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = 0 if one.ignore else number
        return numbers

    @property
    def stacked(self) -> tuple[Annotation, ...]:
        """The annotations from the lowest to the topmost; as they are where none overlaps another."""
        if not self.annotations:
            return ()
        if sum(one.area for one in self.annotations) == rle.area(rle.merge([one.rle for one in self.annotations])):
            return self.annotations
        return tuple(sorted(self.annotations, key=lambda one: (not one.ignore, one.order, -one.area)))

    def place_in(self, folder: Path, export: Export) -> str | None:
        """Put a link to the image, or a copy, into a folder under its stem; returns its name, None where it has none.

        Raises `OutputError`.
        """
        suffix = PurePosixPath(self.name).suffix
        if self.path is not None:
            name = f"{self.stem}{self.path.suffix or suffix}"
            place_image(self.path, below(folder.parent, folder / name), copy=export.copy_images)
        elif self.data is not None:
            name = f"{self.stem}{suffix}"
            with atomic_path(below(folder.parent, folder / name)) as beside:
                beside.write_bytes(self.data)
        else:
            return None
        return PurePosixPath(name).name

    @property
    def found(self) -> Path | bytes:
        """Its path, or the image itself where its annotation file holds it.

        Raises `SupportError` when the image was not found, or has another size than its labels.
        """
        image = self.path or self.data
        if image is None:
            raise SupportError(f"{self.name}: no such image beside its labels or in images/; put it there")
        check_same_size(self.size_hw, image_size(image), f"{self.path or self.name}: its labels say that it")
        return image


def paint(masks: Iterable[tuple[Rle, int]], size_hw: tuple[int, int], *, by_area: bool = True) -> NDArray[np.uint8]:
    """(h, w) label map of masks with their labels: 255 first, then from the largest to the smallest, as COCO has it.

    by_area: False paints them in the order in which they come.
    """
    layers = sorted(masks, key=lambda layer: (layer[1] != IGNORE, -rle.area(layer[0]))) if by_area else masks
    painted = np.zeros(size_hw, np.uint8)
    for mask, label in layers:
        painted[rle.decode(mask)] = label
    return painted


@dataclass
class ImageBuilder:
    """Gathers what a reader finds in one image."""

    size_hw: tuple[int, int]
    prompts: Prompts = field(default_factory=Prompts)
    objects: dict[Hashable, Annotation] = field(default_factory=dict)
    data: bytes | None = None
    """The encoded image, where the annotation file holds it."""

    def add(self, annotation: Annotation, group: Hashable = None) -> None:
        """Add an annotation; those of one label and group are one object, with the score of the first."""
        key = len(self.objects) if group is None else (annotation.label, group)
        if key in self.objects:
            annotation = replace(self.objects[key], rle=rle.merge([self.objects[key].rle, annotation.rle]))
        self.objects[key] = annotation

    def add_rectangle(self, entry: Entry, label: str, corners: Rows, order: int = 0) -> None:
        """Add a box of four corners; a turned one is a mask, as no box holds its pixels. Raises `SupportError`."""
        if is_upright(corners):
            self.prompts.add_box(entry, label, corners)
        else:
            self.add(Annotation(label, filled(entry, polygon(entry, corners, self.size_hw), self.size_hw), order=order))

    def cut(self, hole: Rle) -> None:
        """Take the pixels of a hole from everything that was added so far."""
        for key, one in self.objects.items():
            self.objects[key] = replace(one, rle=rle.subtract(one.rle, hole))

    def build(self, name: str, path: Path | None, stem: str) -> LabelledImage:
        """The image with all that was added."""
        return LabelledImage(name, self.size_hw, tuple(self.objects.values()), path, stem, self.prompts, self.data)


class LazyImages(Generic[T]):
    """Images that are read when they are asked for, again at each pass, so that a long folder fits the memory.

    skipped: where to keep the errors of images that cannot be read, which are left out; by default they are raised.
    kind: of these errors; others are raised.
    """

    def __init__(
        self,
        items: Sequence[T],
        read: Callable[[T], LabelledImage],
        skipped: Skipped | None = None,
        kind: type[InputError] = InputError,
    ):
        self.items, self.read, self.skipped, self.kind = items, read, skipped, kind

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[LabelledImage]:
        if self.skipped is None:
            yield from map(self.read, self.items)
            return
        for item in self.items:
            image = None
            with self.skipped.alone(self.kind):
                image = self.read(item)
            if image is not None:
                yield image


class Images(Protocol):
    """What can be gone through again and again, and has a length: a list, or `LazyImages`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[LabelledImage]: ...


class _CheckedImages:
    """Images whose labels are all among the classes: a writer would lose others, or take them for what they are not."""

    def __init__(self, images: Images, classes: Sequence[str]):
        self.images, self.classes = images, classes

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[LabelledImage]:
        for image in self.images:
            check_labels(image, self.classes)
            yield image


def check_labels(image: LabelledImage, classes: Sequence[str]) -> None:
    """Raise `SupportError` when an image has a label that is not among the classes."""
    prompts = image.prompts
    labels = {one.label for one in image.annotations if not one.ignore}
    unknown = labels.union(prompts.boxes, prompts.points, prompts.scribbles).difference(classes)
    if unknown:
        raise SupportError(
            f"{image.name}: the label {min(unknown)!r}, but the classes are {', '.join(classes) or 'none'}"
        )


@dataclass(frozen=True, eq=False)
class AnnotationSet:
    """Labelled images of a folder.

    Raises `SupportError` for more than 254 classes, one without a name or one named twice, and, when an image is asked
    for, where its label is of no class.
    """

    classes: tuple[str, ...]
    """Class i has the label i + 1 in index masks; at most 254."""
    images: Images
    objects: bool = False
    """Whether each annotation is one object, not a whole class."""
    skipped: Skipped = field(default_factory=Skipped)
    """What the reader did not use or could not read; where `images` are read late, it is complete after a pass."""

    def __post_init__(self) -> None:
        if len(self.classes) > MAX_CLASSES:
            raise SupportError(f"{len(self.classes)} classes; an index mask holds at most {MAX_CLASSES}")
        if len(set(self.classes)) < len(self.classes) or not all(name.strip() for name in self.classes):
            raise SupportError(f"expected classes with a name each, none of them twice, got {short(self.classes)}")
        given = self.images.images if isinstance(self.images, _CheckedImages) else self.images
        object.__setattr__(self, "images", _CheckedImages(given, self.classes))


def split_into_instances(annotations: AnnotationSet, method: str | None) -> AnnotationSet:
    """The same labels with every annotation split into objects; unchanged without a method. Raises `SettingError`."""
    if method is None:
        return annotations

    def apart(image: LabelledImage) -> LabelledImage:
        found: list[Annotation] = []
        for one in image.annotations:
            if one.ignore:
                found.append(one)
            else:
                crops = split(one.mask, method=method)
                found += [replace(one, rle=rle.encode_crop(crop, place, image.size_hw)) for place, crop in crops]
        return replace(image, annotations=tuple(found))

    return AnnotationSet(
        annotations.classes, LazyImages(list(annotations.images), apart), objects=True, skipped=annotations.skipped
    )


def as_objects(annotations: AnnotationSet) -> AnnotationSet:
    """The same labels with an annotation per object: the connected components, where they are whole classes."""
    return annotations if annotations.objects else split_into_instances(annotations, "components")


def passing(annotations: AnnotationSet, thresholds: Thresholds) -> AnnotationSet:
    """The objects of the area and score that is asked for; one without a score passes. Others are counted as left out.

    Raises `SettingError` for `min_presence`, which labels do not tell.
    """
    if thresholds.min_presence is not None:
        raise SettingError("min_presence (--min-presence): these labels hold no presence; runs of kshot do")
    if not thresholds.of_components:
        return annotations
    whole = as_objects(annotations)

    def kept(image: LabelledImage) -> LabelledImage:
        least = thresholds.least_pixels(image.size_hw)
        found = tuple(one for one in image.annotations if one.ignore or _passes(one, least, thresholds.min_score))
        if len(found) < len(image.annotations):
            whole.skipped.leave_out(BELOW, image.name, len(image.annotations) - len(found))
        return replace(image, annotations=found)

    return replace(whole, images=LazyImages(list(whole.images), kept))


def _passes(one: Annotation, least: float, min_score: float) -> bool:
    return one.area >= least and (one.score is None or one.score >= min_score)
