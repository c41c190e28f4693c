"""What the demo shows: which part of which photograph is the support, and which parts are the queries."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kshot.demo.photos import read_photo, read_truth


@dataclass(frozen=True)
class View:
    """A part of a photograph. box_xyxy: pixels; None is all of it."""

    name: str
    photo: str
    box_xyxy: tuple[int, int, int, int] | None = None

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The picture (h, w, 3) and its labels (h, w). Raises `ImageReadError`."""
        picture, truth = read_photo(self.photo), read_truth(self.photo)
        x0, y0, x1, y1 = self.box_xyxy or (0, 0, picture.shape[1], picture.shape[0])
        return picture[y0:y1, x0:x1], truth[y0:y1, x0:x1]


@dataclass(frozen=True)
class Case:
    """One run. classes: of the labels 1..N. without_learning: what to expect of a backbone that has learned nothing."""

    name: str
    title: str
    text: str
    classes: tuple[str, ...]
    supports: tuple[View, ...]
    queries: tuple[View, ...]
    without_learning: str = ""


CASES = (
    Case(
        "coins",
        "Coins",
        "Six coins are labelled. The others lie in other light, and no two are alike.",
        ("coin",),
        (View("top-left", "coins", (0, 0, 186, 152)),),
        (View("top-right", "coins", (186, 0, 384, 152)), View("bottom", "coins", (0, 152, 384, 303))),
    ),
    Case(
        "glands",
        "Glands in stained tissue",
        "A quarter of the slide is labelled: the gland's wall, without what it encloses.",
        ("gland",),
        (View("bottom-left", "ihc", (0, 256, 256, 512)),),
        (
            View("top-left", "ihc", (0, 0, 256, 256)),
            View("top-right", "ihc", (256, 0, 512, 256)),
            View("bottom-right", "ihc", (256, 256, 512, 512)),
        ),
    ),
    Case(
        "launch-pad",
        "Towers and lamps",
        "Two classes at once: one side of the launch pad is labelled, the other side is asked for.",
        ("tower", "lamp"),
        (View("left", "rocket", (0, 0, 260, 427)),),
        (View("right", "rocket", (390, 0, 640, 427)),),
    ),
    Case(
        "eye",
        "The other eye",
        "The smaller eye, turned and half in shadow, is labelled; the other one is asked for.",
        ("eye",),
        (View("right", "chelsea", (230, 0, 451, 300)),),
        (View("left", "chelsea", (0, 0, 230, 300)),),
        "In the light this iris has another colour than in the shadow, so colour and texture carry over only in part.",
    ),
    Case(
        "person",
        "A person",
        "From one portrait to another: other clothes, other light, another background.",
        ("person",),
        (View("astronaut", "astronaut"),),
        (View("grace-hopper", "grace_hopper"),),
        "A person is no colour and no texture: expect little here until the encoder has learned what things look like.",
    ),
)
