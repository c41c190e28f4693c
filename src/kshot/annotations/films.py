"""Labels of films and stacks: which images are frames of one, and which objects are the same from frame to frame."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from kshot.annotations import rle
from kshot.annotations.model import Annotation, AnnotationSet, LabelledImage
from kshot.io.paths import PAGE_OR_FRAME, file_of

_LEAST_IOU = 0.1  # of two masks that may be of one object
_PATIENCE = 5  # frames in which an object may be hidden


@dataclass(frozen=True)
class Film:
    """Frames of one video, pages of one TIFF, or the images of one folder, in order."""

    name: str
    """Of the file, or of the folder, below the folder of images."""
    path: Path | None
    """Of the file; None for a folder, and where it was not found."""
    frames: Sequence[LabelledImage]

    @property
    def stem(self) -> str:
        """What its results are called."""
        if self.name in {"", "."}:
            return "sequence"
        frame = self.frames[0]
        return PurePosixPath(frame.stem).parent.as_posix() if PAGE_OR_FRAME.search(frame.name) else self.name

    def number(self, place: int) -> int:
        """The number of the frame at a place of `frames`, from 0."""
        found = PAGE_OR_FRAME.search(self.frames[place].name)
        return place if found is None else int(found["number"]) - bool(found["page"])


def films_of(annotations: AnnotationSet) -> Iterator[Film]:
    """The films of an annotation set; images that are no frames or pages make one film for each folder."""
    groups: dict[str, list[LabelledImage]] = {}
    for image in annotations.images:
        name = file_of(image.name)
        groups.setdefault(name if name != image.name else PurePosixPath(name).parent.as_posix(), []).append(image)
    for name, frames in groups.items():
        yield Film(name, frames[0].part_of, frames)


def tracked(frames: Iterable[Sequence[Annotation]]) -> Iterator[list[int]]:
    """The number of each object of each frame, from 1; an object keeps its number from frame to frame.

    Objects of one class are matched by the overlap of their masks, so that the sum of all IoUs is the largest (Kuhn
    1955, "The Hungarian method for the assignment problem"); one may be hidden for five frames. 0 for what is ignored.
    """
    seen: dict[int, tuple[int, Annotation]] = {}
    count = 0
    for place, objects in enumerate(frames):
        seen = {number: last for number, last in seen.items() if place - last[0] <= _PATIENCE + 1}
        known = list(seen)
        numbers = [0] * len(objects)
        for earlier, now in _matched([seen[number][1] for number in known], objects):
            numbers[now] = known[earlier]
        for index, one in enumerate(objects):
            if not one.ignore:
                if not numbers[index]:
                    count += 1
                    numbers[index] = count
                seen[numbers[index]] = place, one
        yield numbers


def _matched(earlier: Sequence[Annotation], now: Sequence[Annotation]) -> Iterator[tuple[int, int]]:
    """Pairs of places of the same object."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and seldom needed

    if not earlier or not now or earlier[0].rle["size"] != now[0].rle["size"]:
        return
    ious = rle.ious([one.rle for one in earlier], [one.rle for one in now])
    alike = np.array([[a.label == b.label and not b.ignore for b in now] for a in earlier])
    ious = np.where(alike, ious, 0.0)
    for row, column in zip(*linear_sum_assignment(ious, maximize=True), strict=True):
        if ious[row, column] >= _LEAST_IOU:
            yield int(row), int(column)


def areas(image: LabelledImage, classes: Sequence[str]) -> NDArray[np.int64]:
    """(N, 2) objects and pixels of each class in an image."""
    found = np.zeros((len(classes), 2), np.int64)
    for one in image.annotations:
        if not one.ignore:
            found[classes.index(one.label)] += 1, one.area
    return found
