"""Layers as arrays: which slices are labelled, a task from them, and the labels of the others.

This module knows neither napari nor Qt.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.films import tracked
from kshot.annotations.model import Annotation
from kshot.errors import ShapeError, SupportError
from kshot.io.bit_depth import converter, extremes
from kshot.io.images import read_image
from kshot.memory import DEFAULT_FRAMES, FrameMemory
from kshot.methods.base import Task
from kshot.segmenter import Segmenter
from kshot.types import IGNORE, Prediction, Shot

OBJECT = "object"
"""The class of a layer whose numbers are objects."""


@dataclass(frozen=True, eq=False)
class Slices:
    """The pixels of an image layer as a sequence of planes, over all axes but the last two."""

    data: Any
    """(..., h, w), or (..., h, w, 3 or 4) in colours; an array, or what gives one for an index (dask, zarr)."""
    name: str = "the image layer"
    """In messages."""
    colours: bool = False
    """Whether the last axis is red, green, blue."""
    limits: tuple[float, float] | None = None
    """Values of grey planes that are shown black and white; None goes by the depth of the data."""

    def __post_init__(self) -> None:
        if len(self.data.shape) < 2 + self.colours or 0 in self.data.shape:
            raise ShapeError(f"{self.name}: expected planes (..., h, w), got the shape {tuple(self.data.shape)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., h, w)."""
        whole = tuple(int(side) for side in self.data.shape)
        return whole[:-1] if self.colours else whole

    def __len__(self) -> int:
        return math.prod(self.shape[:-2])

    def place(self, number: int) -> tuple[int, ...]:
        """Where plane `number`, from 0, lies along the axes but the last two."""
        return tuple(int(place) for place in np.unravel_index(number, self.shape[:-2])) if self.shape[:-2] else ()

    def number(self, place: Sequence[int]) -> int:
        """The number of the plane that a viewer shows at a place along all axes."""
        before = self.shape[:-2]
        if not before:
            return 0
        # A layer of fewer axes than the viewer lies along the last of them.
        own = tuple(place)[: len(place) - 2][-len(before) :]
        inside = [min(max(0, at), size - 1) for at, size in zip(own, before, strict=True)]
        return int(np.ravel_multi_index(inside, before))

    def image(self, number: int) -> NDArray[np.uint8]:
        """(h, w, 3) of a plane, as it is shown. Raises `ShapeError`."""
        plane = np.asarray(self.data[self.place(number)])
        if self.colours or self.limits is None:
            return read_image(plane)
        shown = converter(plane.dtype, lambda: extremes(plane), self.name, self.limits)(plane)
        return np.ascontiguousarray(np.broadcast_to(shown[..., None], (*plane.shape, 3)))


@dataclass(frozen=True, eq=False)
class Painted:
    """The numbers that somebody painted over an image, in a Labels layer."""

    data: Any
    """(..., h, w) whole numbers, 0 where nothing is painted; of the image's shape."""
    slices: Slices
    objects: bool = True
    """Whether a number is one object, and all are of one class; else each number is a class."""

    def __post_init__(self) -> None:
        if tuple(self.data.shape) != self.slices.shape:
            ours, theirs = (" x ".join(map(str, shape)) for shape in (self.data.shape, self.slices.shape))
            raise ShapeError(f"the labels are {ours} and {self.slices.name} is {theirs}; they must agree")

    def plane(self, number: int) -> NDArray[np.int32]:
        """(h, w) numbers of a plane."""
        return np.asarray(self.data[self.slices.place(number)]).astype(np.int32)

    def numbers(self) -> list[int]:
        """The planes on which something is painted."""
        return [number for number in range(len(self.slices)) if self.plane(number).any()]

    def shot(self, number: int) -> Shot:
        """What a plane shows; unpainted pixels are background. Raises `SupportError` for class numbers over 254."""
        image, plane = self.slices.image(number), self.plane(number)
        if self.objects:
            return Shot(image, mask=(plane > 0).astype(np.uint8), label=OBJECT, objects=plane)
        values = sorted(set(np.unique(plane).tolist()) - {0})
        if values[0] < 0 or values[-1] >= IGNORE:
            raise SupportError(
                f"a class of the number {values[-1]}, where 1 to 254 can be classes; choose that numbers are objects, "
                "or paint with smaller ones"
            )
        return Shot(image, mask=plane.astype(np.uint8), label={value: name_of(value) for value in values})


def name_of(value: int) -> str:
    """What the class of a painted number is called."""
    return f"label {value}"


def fit(segmenter: Segmenter, painted: Painted, numbers: Sequence[int]) -> Task:
    """A task from these planes. Raises `SupportError` where none is given, and as `Segmenter.fit` does."""
    if not numbers:
        raise SupportError("nothing is painted there; paint the objects of one slice in the labels layer")
    return segmenter.fit([painted.shot(number) for number in numbers])


def predicted(
    segmenter: Segmenter, task: Task, slices: Slices, kept: Painted | None = None, *, related: bool = True
) -> Iterator[NDArray[np.int32]]:
    """Labels (h, w) of each plane in order: numbers of objects, or of classes as they were painted.

    kept: painted planes that stay as they are. related: planes follow each other as slices of a stack do, so that each
    is compared with those before it too, and an object keeps its number from plane to plane. Raises as `predict` does.
    """
    own = set(kept.numbers()) if kept else set[int]()
    film = FrameMemory(task, DEFAULT_FRAMES if related else 0)
    found = (
        kept.plane(number) if kept and number in own else segmenter.predict_frame(film, slices.image(number))
        for number in range(len(slices))
    )
    if task.classes != (OBJECT,):
        return (each if isinstance(each, np.ndarray) else _class_numbers(each) for each in found)
    return _numbered((_annotations(each) for each in found), slices.shape[-2:], related)


def _class_numbers(pred: Prediction) -> NDArray[np.int32]:
    values = np.array([0, *(int(name.rpartition(" ")[2]) for name in pred.classes)], np.int32)
    numbers: NDArray[np.int32] = values[pred.mask]
    return numbers


def _annotations(plane: Prediction | NDArray[np.int32]) -> list[Annotation]:
    """The objects of a plane."""
    if isinstance(plane, Prediction):
        return [Annotation.from_instance(one) for one in plane.instances("learned")]
    return [Annotation.from_mask(plane == value, OBJECT) for value in np.unique(plane[plane > 0]).tolist()]


def _numbered(
    planes: Iterable[list[Annotation]], size_hw: tuple[int, ...], related: bool
) -> Iterator[NDArray[np.int32]]:
    """Each plane's objects with their numbers painted; the same one from plane to plane where planes are related."""
    seen: list[list[Annotation]] = []

    def noted() -> Iterator[list[Annotation]]:
        for plane in planes:
            seen.append(plane)
            yield plane

    every = tracked(noted()) if related else (list(range(1, len(plane) + 1)) for plane in noted())
    for numbers in every:
        labels = np.zeros(size_hw, np.int32)
        for one, number in zip(seen.pop(), numbers, strict=True):
            left, top, crop = one.crop
            labels[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = number
        yield labels
