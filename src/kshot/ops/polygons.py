"""Masks as polygons along the edges of their pixels (`rle.encode_polygon` makes masks of polygons).

A pixel at row y and column x covers the square from (x, y) to (x + 1, y + 1), as labelme, CVAT, COCO and Label Studio
have it, so a polygon of whole corners gives back its mask exactly.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kshot.ops.components import connected_components

Corners = NDArray[np.float64]
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up as x, y; the object lies to the right hand
_STRAIGHT = 0.01  # pixels by which the corners of an upright rectangle may differ
_REACH = 10_000  # corners among which a ring looks for the nearest
_AT_ONCE = 2**22  # pixels of a mask whose edges are looked for at once
_RIGHT, _DOWN, _LEFT, _UP = 1, 2, 4, 8


def polygons(mask: NDArray[np.bool_], tolerance: float = 0.0) -> list[Corners]:
    """One polygon (n, 2) xy per 4-connected part of a mask (h, w); holes are bridged to it by a cut of no width."""
    return [
        bridged(rings(part, tolerance)) + np.array([columns.start, rows.start], np.float64)
        for (rows, columns), part in connected_components(mask, corners=False)
    ]


def rings(mask: NDArray[np.bool_], tolerance: float = 0.0) -> list[Corners]:
    """The closed outlines of a mask (h, w), (n, 2) xy each, without the first corner again; holes are rings too.

    tolerance: how far in pixels the ring may leave the edge (Douglas and Peucker); rings of less than three corners
    stay as they are.
    """
    left = _edges(mask)
    starts = np.flatnonzero(left.ravel() & _RIGHT)  # every ring has a topmost edge, which leads to the right
    width = left.shape[1]
    found = []
    for start in starts.tolist():
        if left[start // width, start % width] & _RIGHT:
            ring = np.array(_followed(left, start % width, start // width), np.float64)
            found.append(_simplified(ring, tolerance) if tolerance > 0 else ring)
    return found


def bridged(found: Sequence[Corners]) -> Corners:
    """One polygon of several rings: each is joined to a near corner of those before, there and back.

    By the even-odd rule, and in any filling that follows its edges, a way there and back encloses nothing.
    """
    corners = np.concatenate(found)
    starts = np.cumsum([0] + [len(ring) for ring in found])
    joined: dict[int, list[int]] = {}  # corner: the rings that hang on it
    anchor = [0] * len(found)
    for index in range(1, len(found)):
        # Rings come from top to bottom, so near corners are late ones; without a limit noise would take its square.
        first = max(0, int(starts[index]) - _REACH)
        nearest = first + int(((corners[first : starts[index]] - found[index][0]) ** 2).sum(1).argmin())
        joined.setdefault(nearest, []).append(index)
        anchor[index] = nearest
    path: list[int] = []
    # (ring, corners of it that are through): a stack, because rings hang on rings as deep as there are rings.
    stack = [(0, iter(range(len(found[0]))))]
    while stack:
        ring, rest = stack[-1]
        corner = next(rest, None)
        if corner is None:
            stack.pop()
            if stack:
                path += [int(starts[ring]), anchor[ring]]
            continue
        path.append(int(starts[ring]) + corner)
        stack += [(child, iter(range(len(found[child])))) for child in joined.get(path[-1], ())]
    return corners[path]


def ellipse_corners(cx: float, cy: float, rx: float, ry: float) -> list[list[float]]:
    """An ellipse as a polygon that leaves it by less than a twentieth of a pixel up to a radius of 1000."""
    turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    rows: list[list[float]] = np.stack([cx + rx * np.cos(turn), cy + ry * np.sin(turn)], 1).tolist()
    return rows


def turned(corners: list[list[float]], about: Sequence[float], degrees: float) -> list[list[float]]:
    """Corners [[x, y], ...] turned about a point, clockwise as seen on the screen."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    apart = [(x - about[0], y - about[1]) for x, y in corners]
    return [[about[0] + x * cos - y * sin, about[1] + x * sin + y * cos] for x, y in apart] if angle else corners


def is_upright(corners: Sequence[Sequence[float]]) -> bool:
    """Whether the four corners of a rectangle lie on the edges of the box around them."""
    xs, ys = zip(*corners, strict=True)
    return all(
        min(abs(x - min(xs)), abs(x - max(xs))) < _STRAIGHT and min(abs(y - min(ys)), abs(y - max(ys))) < _STRAIGHT
        for x, y in corners
    )


def _edges(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(h + 1, w + 1) bits: in which directions an edge leaves the corner, with the object to its right hand."""
    height, width = mask.shape
    edges, step = np.zeros((height + 1, width + 1), np.uint8), max(1, _AT_ONCE // width)
    for top in range(0, height + 1, step):
        # A row of nothing above the first and below the last, and some rows at a time: the mask may be large.
        inside = np.pad(mask[max(0, top - 1) : top + step], ((top == 0, top + step > height), (1, 1)))
        above, below, left, behind = inside[:-1, 1:], inside[1:, 1:], inside[1:, :-1], inside[:-1, :-1]
        rows = edges[top : top + step]
        # Edges to the left and upwards leave from the corner at whose other side they lie.
        rows |= np.where(below & ~above, np.uint8(_RIGHT), np.uint8(0))
        rows |= np.where(left & ~below, np.uint8(_DOWN), np.uint8(0))
        rows |= np.where(behind & ~left, np.uint8(_LEFT), np.uint8(0))
        rows |= np.where(above & ~behind, np.uint8(_UP), np.uint8(0))
    return edges


def _followed(edges: NDArray[np.uint8], x: int, y: int) -> list[tuple[int, int]]:
    """The corners of the ring that leaves (x, y) to the right; its edges are taken away."""
    start, heading, ring = (x, y), 0, [(x, y)]
    edges[y, x] -= _RIGHT
    while True:
        x, y = x + _STEPS[heading][0], y + _STEPS[heading][1]
        if (x, y) == start and heading == 3:
            return ring
        # Where two rings meet in a corner the right turn stays with the same pixel, so that rings never cross.
        turn = next((t for t in (1, 0, 3) if edges[y, x] & 1 << (heading + t) % 4), None)
        if turn is None:
            return ring
        if turn:
            heading = (heading + turn) % 4
            ring.append((x, y))
        edges[y, x] -= 1 << heading


def _simplified(ring: Corners, tolerance: float) -> Corners:
    # Imported here, as it loads scipy.signal and scipy.stats.
    from skimage.measure import approximate_polygon

    closed = approximate_polygon(np.concatenate([ring, ring[:1]]), tolerance)[:-1]
    return ring if len(closed) < 3 else closed
