"""Labels of a folder of images, whatever they were read from: what readers return and writers take.

Shapes travel as COCO's run lengths: small enough to keep those of a whole folder, and one decoder for all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_rle

from kshot.annotations.checked_json import Item
from kshot.annotations.rle import runs, runs_of
from kshot.errors import SupportError
from kshot.io.atomic import place_image
from kshot.io.images import image_size
from kshot.ops.components import split
from kshot.types import IGNORE, MAX_CLASSES, Shot, check_same_size

T = TypeVar("T")
Rows = list[list[float]]
_AT_ONCE = 2**22  # pixels of a mask whose runs are looked for at once


@dataclass(frozen=True)
class Export:
    """How labels are written, for the formats that leave a choice.

    instances: None keeps the parts as they are; "components" or "watershed" splits them into objects.
    polygons: polygons instead of masks. tolerance: how far, in pixels, a polygon may leave the mask's edge; 0 follows
    every pixel. copy_images: copies of the images where a layout holds them, instead of links.
    """

    instances: str | None = None
    polygons: bool = False
    tolerance: float = 0.0
    copy_images: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """The pixels of one object, or of a whole class.

    rle: COCO's compressed run lengths, {"size": [h, w], "counts": bytes}. score: 0..1 where it is known.
    ignore: pixels that nobody decided on, with a label where they are a crowd of one class, else with "".
    """

    label: str
    rle: dict[str, Any]
    score: float | None = None
    ignore: bool = False

    @classmethod
    def of(cls, mask: NDArray[Any], label: str, score: float | None = None, *, ignore: bool = False) -> "Part":
        """The part of a mask (h, w), everything but zero."""
        return cls(label, coco_rle.encode(np.asfortranarray(mask, np.uint8)), score, ignore)

    @classmethod
    def of_crop(
        cls, crop: NDArray[np.bool_], place: tuple[slice, slice], size_hw: tuple[int, int], label: str
    ) -> "Part":
        """The part of a piece of a mask that begins at `place`; the work grows with the piece, not with the image."""
        top, left, step = place[0].start, place[1].start, max(1, _AT_ONCE // len(crop))
        starts = range(0, crop.shape[1], step)
        return cls.of_runs([runs(crop[:, x : x + step], (top, left + x), size_hw) for x in starts], size_hw, label)

    @classmethod
    def of_runs(
        cls,
        found: Sequence[NDArray[np.int64]],
        size_hw: tuple[int, int],
        label: str,
        score: float | None = None,
        *,
        ignore: bool = False,
    ) -> "Part":
        """The part of `runs` of pieces from left to right, at least one run in all."""
        starts, ends = np.concatenate(found).T
        apart = starts[1:] != ends[:-1]  # in a piece as tall as the image a run goes on in the next column
        starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
        edges = np.stack([starts, ends], 1).ravel()
        rest = [size_hw[0] * size_hw[1] - int(edges[-1])] if edges[-1] < size_hw[0] * size_hw[1] else []
        counts = np.diff(edges, prepend=0).tolist() + rest
        encoded: dict[str, Any] = coco_rle.frPyObjects({"size": list(size_hw), "counts": counts}, *size_hw)
        return cls(label, encoded, score, ignore)

    def with_more(self, other: "Part") -> "Part":
        """Both parts as one, with the score of this one."""
        merged: dict[str, Any] = coco_rle.merge([self.rle, other.rle])
        return replace(self, rle=merged)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(h, w) truth values."""
        decoded: NDArray[np.bool_] = coco_rle.decode(self.rle).view(np.bool_)  # zeros and ones of a byte: no copy
        return decoded

    @property
    def area(self) -> int:
        """Its pixels."""
        return int(coco_rle.area(self.rle))

    @property
    def crop(self) -> tuple[int, int, NDArray[np.bool_]]:
        """(left, top, mask (h, w)) of the smallest box around it; the columns that it spans are all that is decoded."""
        x, y, width, height = (int(side) for side in coco_rle.toBbox(self.rle))
        tall = self.rle["size"][0]
        ends = np.cumsum(runs_of(Item(self.label, {}), self.rle["counts"].decode("ascii")))
        lengths = np.diff(np.clip(ends - x * tall, 0, width * tall), prepend=0)
        slab = np.repeat(np.arange(len(ends)) % 2 == 1, lengths).reshape(width, tall)
        return x, y, np.ascontiguousarray(slab.T[y : y + height])


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """What is known of one image.

    name: its path below the folder of images, with suffix. size_hw: as displayed. path: where it is, None when it was
    not found. stem: what its results are called, unique in the folder. boxes (xyxy), points (xy) and lines (xy), in
    pixels by class: what marks objects without outlining them.
    """

    name: str
    size_hw: tuple[int, int]
    parts: tuple[Part, ...] = ()
    path: Path | None = None
    stem: str = ""
    boxes: Mapping[str, Rows] = field(default_factory=dict)
    points: Mapping[str, Rows] = field(default_factory=dict)
    lines: Mapping[str, list[Rows]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A polygon thinner than a pixel marks none, and an empty mask has no box that could be written.
        object.__setattr__(self, "parts", tuple(part for part in self.parts if part.area))
        if not self.stem:
            object.__setattr__(self, "stem", PurePosixPath(self.name).with_suffix("").as_posix())

    def labels(self, classes: Sequence[str]) -> NDArray[np.uint8]:
        """(h, w) labels, 1..N = `classes`, 255 = ignore; smaller parts lie on larger ones."""
        mask = np.zeros(self.size_hw, np.uint8)
        for part in sorted(self.parts, key=lambda part: (not part.ignore, -part.area)):
            mask[part.mask] = IGNORE if part.ignore else classes.index(part.label) + 1
        return mask

    def place(self, folder: Path, how: "Export | None") -> str | None:
        """Put a link to the image, or a copy, into a folder under its stem; returns its name, None where it has none.

        Raises `OutputError`.
        """
        if self.path is None:
            return None
        name = f"{self.stem}{self.path.suffix or PurePosixPath(self.name).suffix}"
        place_image(self.path, folder / name, copy=bool(how and how.copy_images))
        return PurePosixPath(name).name

    @property
    def found(self) -> Path:
        """Its path. Raises `SupportError` when the image was not found, or has another size than its labels."""
        if self.path is None:
            raise SupportError(f"{self.name}: no such image beside its labels or in images/; put it there")
        check_same_size(self.size_hw, image_size(self.path), f"{self.path}: its labels say that it")
        return self.path


@dataclass
class Marks:
    """Boxes, points and lines by class, as a reader finds them."""

    boxes: dict[str, Rows] = field(default_factory=dict)
    points: dict[str, Rows] = field(default_factory=dict)
    lines: dict[str, list[Rows]] = field(default_factory=dict)

    def box(self, item: Item, label: str, corners: Rows) -> None:
        """Add the upright box around some corners. Raises `SupportError` when it has no area."""
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        if min(xs) == max(xs) or min(ys) == max(ys):
            raise item.wrong("its box has no area")
        self.boxes.setdefault(label, []).append([min(xs), min(ys), max(xs), max(ys)])

    def given(self) -> dict[str, Any]:
        """The marks as `LabelledImage` takes them."""
        return {"boxes": self.boxes, "points": self.points, "lines": self.lines}


class Lazy(Generic[T]):
    """Images that are read when they are asked for, again at each pass, so that a long folder fits the memory."""

    def __init__(self, items: Sequence[T], read: Callable[[T], LabelledImage]):
        self.items, self.read = items, read

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[LabelledImage]:
        return map(self.read, self.items)


class Images(Protocol):
    """What can be gone through again and again, and has a length: a list, or `Lazy`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[LabelledImage]: ...


@dataclass(frozen=True, eq=False)
class LabelTree:
    """Labelled images. classes: label i + 1 in index masks. objects: each part is one object, not a whole class."""

    classes: tuple[str, ...]
    images: Images
    objects: bool = False

    def __post_init__(self) -> None:
        if len(self.classes) > MAX_CLASSES:
            raise SupportError(f"{len(self.classes)} classes; an index mask holds at most {MAX_CLASSES}")


def with_instances(tree: LabelTree, method: str | None) -> LabelTree:
    """The same labels with every part split into objects; unchanged without a method. Raises `SettingError`."""
    if method is None:
        return tree

    def parted(image: LabelledImage) -> LabelledImage:
        parts: list[Part] = []
        for part in image.parts:
            pieces = () if part.ignore else split(part.mask, method=method)
            parts += [replace(part, rle=Part.of_crop(crop, at, image.size_hw, "").rle) for at, crop in pieces]
            parts += [part] if part.ignore else []
        return replace(image, parts=tuple(parts))

    return LabelTree(tree.classes, Lazy(list(tree.images), parted), objects=True)


def shots_of(tree: LabelTree) -> list[Shot]:
    """Shots of the labelled images: one with a mask where there are outlines, else one per class and kind of mark.

    A box in an image with a mask is marked as ignore there, since it covers an object that nobody outlined; it makes
    a shot of its own when its class has no outline. Raises `SupportError` and `MaskError`.
    """
    return [shot for image in tree.images for shot in _shots(image, tree.classes)]


def _shots(image: LabelledImage, classes: Sequence[str]) -> Iterator[Shot]:
    shown: dict[int, str] = {}
    if image.parts:
        mask = image.labels(classes)
        for row in (row for rows in image.boxes.values() for row in rows):
            x0, y0, x1, y1 = (max(0, round(side)) for side in row)
            mask[y0:y1, x0:x1][mask[y0:y1, x0:x1] == 0] = IGNORE
        shown = {index: name for index, name in enumerate(classes, start=1) if (mask == index).any()}
        if shown:
            yield Shot(image.found, mask=mask, label=shown)
    for name in dict.fromkeys([*image.boxes, *image.points, *image.lines]):
        if name not in shown.values():
            yield from _marked(image, name)


def _marked(image: LabelledImage, name: str) -> Iterator[Shot]:
    boxes, points, lines = image.boxes.get(name), image.points.get(name), image.lines.get(name)
    if boxes or points:
        yield Shot(image.found, boxes=boxes or None, points=points or None, label=name)
    if lines:
        yield Shot(image.found, scribbles=lines, label=name)
