"""What the demo shows: which part of which photograph is the support, which parts are the queries, what came out."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from kshot.demo.photos import read_photo, read_truth


@dataclass(frozen=True)
class Crop:
    """A part of a photograph, or all of it."""

    name: str
    photo: str
    """One of `PHOTOS`."""
    box_xyxy: tuple[int, int, int, int] | None = None
    """In pixels; None is all of it."""

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The pixels (h, w, 3) and their labels (h, w). Raises `ImageReadError`."""
        pixels, truth = read_photo(self.photo), read_truth(self.photo)
        x0, y0, x1, y1 = self.box_xyxy or (0, 0, pixels.shape[1], pixels.shape[0])
        return pixels[y0:y1, x0:x1], truth[y0:y1, x0:x1]


@dataclass(frozen=True)
class Case:
    """One run of the demo."""

    name: str
    title: str
    text: str
    """What is shown to it, and what it is asked for."""
    classes: tuple[str, ...]
    """Of the labels 1..N of the masks."""
    supports: tuple[Crop, ...]
    queries: tuple[Crop, ...]
    without_learning: str = ""
    """What to expect of a backbone that has learned nothing."""


@dataclass(frozen=True)
class CaseResult:
    """What came out of a case."""

    case: Case
    folder: Path
    """Holds support, images and result."""
    command: str
    """What `kshot` does the same with."""
    objects: int
    """Connected components that were found."""
    ious: dict[str, dict[str, float]]
    """{query: {class: IoU with the mask drawn by hand}}, of the classes that the query shows."""

    @property
    def iou(self) -> float:
        """Mean over the queries and their classes."""
        return fmean(value for values in self.ious.values() for value in values.values())


CASES = (
    Case(
        "coins",
        "Coins",
        "Six coins are labelled. The others lie in other light, and no two are alike.",
        ("coin",),
        (Crop("top-left", "coins", (0, 0, 186, 152)),),
        (Crop("top-right", "coins", (186, 0, 384, 152)), Crop("bottom", "coins", (0, 152, 384, 303))),
    ),
    Case(
        "glands",
        "Glands in stained tissue",
        "A quarter of the slide is labelled: the gland's wall, without what it encloses.",
        ("gland",),
        (Crop("bottom-left", "ihc", (0, 256, 256, 512)),),
        (
            Crop("top-left", "ihc", (0, 0, 256, 256)),
            Crop("top-right", "ihc", (256, 0, 512, 256)),
            Crop("bottom-right", "ihc", (256, 256, 512, 512)),
        ),
    ),
    Case(
        "launch-pad",
        "Towers and lamps",
        "Two classes at once: one side of the launch pad is labelled, the other side is asked for.",
        ("tower", "lamp"),
        (Crop("left", "rocket", (0, 0, 260, 427)),),
        (Crop("right", "rocket", (390, 0, 640, 427)),),
    ),
    Case(
        "eye",
        "The other eye",
        "The smaller eye, turned and half in shadow, is labelled; the other one is asked for.",
        ("eye",),
        (Crop("right", "chelsea", (230, 0, 451, 300)),),
        (Crop("left", "chelsea", (0, 0, 230, 300)),),
        "In the light this iris has another colour than in the shadow, so colour and texture carry over only in part.",
    ),
    Case(
        "person",
        "A person",
        "From one portrait to another: other clothes, other light, another background.",
        ("person",),
        (Crop("astronaut", "astronaut"),),
        (Crop("grace-hopper", "grace_hopper"),),
        "A person is no colour and no texture: expect little here until the encoder has learned what things look like.",
    ),
)
