"""What a person draws on an image: clicks, boxes and strokes, in pixels of the image."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field

from kshot.errors import MaskError
from kshot.ops.prompt_masks import points_along

MAX_POINTS = 4000
"""Of one stroke."""
MAX_MARKS = 1000
"""On one image since it was last accepted."""
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
ClassIndex = Annotated[int, Field(ge=0, le=253, description="Place of the class in the list of classes, from 0.")]


class _Mark(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Click(_Mark):
    """A place on the class, or off every class."""

    kind: Literal["click"]
    class_index: ClassIndex = 0
    on: bool = True
    x: Coordinate
    y: Coordinate


class Box(_Mark):
    """A box around an object of the class."""

    kind: Literal["box"]
    class_index: ClassIndex = 0
    box_xyxy: Annotated[tuple[Coordinate, Coordinate, Coordinate, Coordinate], Field(description="x0, y0, x1, y1.")]


class Stroke(_Mark):
    """A line of the brush (on) or of the eraser (off). Its pixels become exactly that."""

    kind: Literal["stroke"]
    class_index: ClassIndex = 0
    on: bool = True
    radius: Annotated[float, Field(ge=0.25, le=10_000, description="Pixels of the image.")] = 8.0
    grow: Annotated[bool, Field(description="Whether what looks the same around it follows.")] = True
    points: Annotated[
        tuple[tuple[Coordinate, Coordinate], ...], Field(min_length=1, max_length=MAX_POINTS, description="[x, y] each")
    ]


Mark = Annotated[Click | Box | Stroke, Field(discriminator="kind")]


def check(mark: Mark, size_hw: tuple[int, int], classes: Sequence[str], name: str) -> None:
    """Raise `MaskError` for a mark of no class, or one that lies outside of an image of this height and width."""
    if mark.class_index >= len(classes):
        raise MaskError(f"there is no class {mark.class_index}: {len(classes)} are named; name it first")
    height, width = size_hw
    if isinstance(mark, Box):
        x0, y0, x1, y1 = mark.box_xyxy
        if x1 - x0 < 1 or y1 - y0 < 1:
            raise MaskError(f"the box {list(mark.box_xyxy)} has no area; drag from one corner to the other")
        inside = x1 > 0 and y1 > 0 and x0 < width and y0 < height
    elif isinstance(mark, Click):
        inside = 0 <= mark.x < width and 0 <= mark.y < height
    else:
        reach = mark.radius
        inside = any(-reach < x < width + reach and -reach < y < height + reach for x, y in mark.points)
    if not inside:
        raise MaskError(f"the {mark.kind} lies outside of {name}, which is {width} x {height} pixels")


def points_of(marks: Iterable[Mark], size_hw: tuple[int, int]) -> NDArray[np.float64]:
    """(n, 2) x y: the places of clicks, and points along the strokes that grow, inside the image."""
    found = [np.zeros((0, 2))]
    for mark in marks:
        if isinstance(mark, Click):
            found.append(np.array([[mark.x, mark.y]]))
        elif isinstance(mark, Stroke) and mark.grow:
            found.append(points_along(np.asarray(mark.points, np.float64)))
    points = np.concatenate(found)
    inside = (points >= 0).all(1) & (points < (size_hw[1], size_hw[0])).all(1)
    return points[inside]


def painted(stroke: Stroke, size_hw: tuple[int, int], scale: float) -> NDArray[np.bool_]:
    """(h, w): the pixels under a stroke, of a copy of this size; scale: its pixels for one of the image."""
    canvas = Image.new("1", (size_hw[1], size_hw[0]))
    pen = ImageDraw.Draw(canvas)
    radius = max(0.5, stroke.radius * scale)
    line = [(x * scale, y * scale) for x, y in stroke.points]
    if len(line) > 1:
        pen.line(line, fill=1, width=max(1, round(2 * radius)), joint="curve")
    for x, y in line if len(line) < 3 else (line[0], line[-1]):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.asarray(canvas)
