"""Objects that touch, taken apart by the size and the shape of objects that somebody outlined.

1. A component is over-segmented: a basin for each peak of the distance to its rim times the score.
2. Basins merge pair by pair, where the saddle between them is highest relative to the lower peak: a tree.
3. Each node of the tree is one object or what its two children are, whichever is more like the known objects, pixel by
   pixel; dynamic programming finds the best cut (after Arteta et al., MICCAI 2012, section 2, who choose among nested
   regions so; here the score of a region is not learned by an SVM but follows from few outlined objects). No part of a
   cut may be less like them than what is cut, so that nothing is chipped off.

Since a region counts by its pixels, the known objects do too: their sizes are those that a pixel of them sees. Where
sizes are mixed most objects are small, and most pixels lie in large ones, which must not be cut into small ones.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from kshot.ops.measures import solidity

# Peaks are kept apart unless the saddle between them is this close to the lower one: many basins, to merge later.
_SADDLE = 0.97
_SMOOTHING = 1.0  # pixels, of the distance to the rim, whose ridges are ragged
_LEAST_AREA_STD, _LEAST_SOLIDITY_STD = 0.3, 0.04  # few objects look more alike than the next ones will be
_LIKE = 0.8  # a component that is so much like one object is one
Crop = NDArray[np.bool_]
Box = tuple[slice, slice]


@dataclass(frozen=True)
class ObjectShape:
    """How large and how round the known objects of a class are; means and deviations are over their pixels."""

    count: int
    """Objects that it was learned from; at least 1."""
    log_area: float
    """Mean of the logarithm of their areas in pixels."""
    log_area_std: float
    solidity: float
    """Mean; see `measures.solidity`."""
    solidity_std: float
    pixels: int = 1
    """Of all of them, by which shapes are pooled."""

    @classmethod
    def of(cls, masks: Iterable[Crop]) -> "ObjectShape | None":
        """The shape of objects, each a mask (h, w); None without any."""
        facts = np.array([[math.log(mask.sum()), solidity(mask)] for mask in masks if mask.any()])
        if not len(facts):
            return None
        areas = np.exp(facts[:, 0])
        mean = areas @ facts / areas.sum()
        std = np.sqrt(areas @ (facts - mean) ** 2 / areas.sum())
        (area, solid), (area_std, solid_std) = mean.tolist(), std.tolist()
        return cls(len(facts), area, area_std, solid, solid_std, round(areas.sum()))

    @classmethod
    def pooled(cls, shapes: "Iterable[ObjectShape]") -> "ObjectShape | None":
        """The shape of all objects of several sets."""
        known = list(shapes)
        if not known:
            return None
        means = np.array([[s.log_area, s.solidity] for s in known])
        stds, pixels = np.array([[s.log_area_std, s.solidity_std] for s in known]), np.array([s.pixels for s in known])
        mean = pixels @ means / pixels.sum()
        std = np.sqrt(pixels @ (stds**2 + (means - mean) ** 2) / pixels.sum())
        count = sum(s.count for s in known)
        return cls(count, float(mean[0]), float(std[0]), float(mean[1]), float(std[1]), int(pixels.sum()))

    def likeness(self, area: int, solid: float) -> float:
        """0..1, how much like the known objects one is; more solid ones count as like. Falls slowly far away."""
        of_area = (math.log(area) - self.log_area) / max(self.log_area_std, _LEAST_AREA_STD)
        of_shape = min(0.0, solid - self.solidity) / max(self.solidity_std, _LEAST_SOLIDITY_STD)
        return 1 / (1 + (of_area**2 + of_shape**2) / 2)

    def too_large(self, first: int, second: int) -> bool:
        """Whether two regions of so many pixels are each an object at least rather than parts of one: by their areas
        they are more like the known objects than both together are."""
        std = max(self.log_area_std, _LEAST_AREA_STD)
        small, both = math.log(min(first, second)), math.log(first + second)
        return small >= self.log_area - 2 * std and both > self.log_area + 4 * std


@dataclass(frozen=True, eq=False)
class _Node:
    """A region of the tree."""

    basins: tuple[int, ...]
    place: Box
    """Around it."""
    area: int
    value: float
    """Pixels times likeness of the best cut of it."""
    parts: tuple[tuple[int, ...], ...]
    """The basins of each object of that cut."""
    least: float
    """Likeness of the least like of them, 0..1."""


def split_by_shape(inside: Crop, score: NDArray[np.float32] | None, shape: ObjectShape) -> Iterator[tuple[Box, Crop]]:
    """The objects of one component (h, w), each as its box in it and its mask there; score: (h, w) in 0..1.

    Time and memory grow with the objects, not with their square: ten thousand may touch in one component.
    """
    from scipy.ndimage import find_objects

    whole = int(inside.sum())
    if shape.likeness(whole, solidity(inside)) >= _LIKE:
        yield (slice(0, inside.shape[0]), slice(0, inside.shape[1])), inside
        return
    basins, height = _basins(inside, score)
    owners = np.zeros(basins.max() + 1, np.int32)
    for number, part in enumerate(_best_cut(basins, height, shape), start=1):
        owners[list(part)] = number
    numbers = owners[basins]
    for number, place in enumerate(find_objects(numbers), start=1):
        yield place, numbers[place] == number


def _basins(inside: Crop, score: NDArray[np.float32] | None) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """(h, w) numbers of basins from 1, and the height (h, w) that they lie in."""
    # Imported here, since most runs split nothing.
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from skimage.measure import label
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    padded = np.pad(inside, 1)
    height = gaussian_filter(distance_transform_edt(padded), _SMOOTHING) * padded
    if score is not None:
        height *= np.pad(np.clip(score, 0.01, 1), 1)
    peaks = local_maxima(reconstruction(_SADDLE * height, height), allow_borders=True) & padded
    basins = watershed(-height, label(peaks, connectivity=2), mask=padded, connectivity=2)
    return basins[1:-1, 1:-1], height[1:-1, 1:-1]


def _best_cut(
    basins: NDArray[np.int32], height: NDArray[np.float64], shape: ObjectShape
) -> tuple[tuple[int, ...], ...]:
    """The basins of each object."""
    from scipy.ndimage import find_objects, maximum

    places = dict(enumerate(find_objects(basins), start=1))
    peaks = dict(zip(places, np.atleast_1d(maximum(height, basins, list(places))).tolist(), strict=True))
    nodes = {index: _node(basins, (index,), place, shape) for index, place in places.items()}
    saddles: dict[int, dict[int, float]] = {index: {} for index in nodes}
    queue = list[tuple[float, int, int]]()

    def meet(one: int, other: int, saddle: float) -> None:
        saddles[one][other] = saddles[other][one] = saddle
        if not shape.too_large(nodes[one].area, nodes[other].area):
            heappush(queue, (-saddle / min(peaks[one], peaks[other]), one, other))

    for (one, other), saddle in _saddles(basins, height).items():
        meet(one, other, saddle)
    while queue:
        _, first, second = heappop(queue)
        if first not in nodes or second not in nodes:
            continue
        joined, children = len(saddles) + 1, (nodes.pop(first), nodes.pop(second))
        place = around(children[0].place, children[1].place)
        nodes[joined] = _node(basins, children[0].basins + children[1].basins, place, shape, children)
        peaks[joined], saddles[joined] = max(peaks[first], peaks[second]), {}
        others = (saddles[first].keys() | saddles[second].keys()) & nodes.keys()
        for other in sorted(others):
            meet(other, joined, max(saddles[first].get(other, 0.0), saddles[second].get(other, 0.0)))
    return tuple(part for node in nodes.values() for part in node.parts)


def _node(
    basins: NDArray[np.int32],
    members: tuple[int, ...],
    place: Box,
    shape: ObjectShape,
    children: tuple[_Node, ...] = (),
) -> _Node:
    region = np.isin(basins[place], members)
    area = int(region.sum())
    like, apart = shape.likeness(area, solidity(region)), sum(child.value for child in children)
    least = min((child.least for child in children), default=0.0)
    if least >= like and apart > area * like:
        return _Node(members, place, area, apart, tuple(part for child in children for part in child.parts), least)
    return _Node(members, place, area, area * like, (members,), like)


def around(first: Box, second: Box) -> Box:
    """The smallest box around two."""
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    return rows, columns


def _saddles(basins: NDArray[np.int32], height: NDArray[np.float64]) -> dict[tuple[int, int], float]:
    """{pair of neighbouring basins: the highest of their common border's pixels, the lower one of two}."""
    found: dict[tuple[int, int], float] = {}
    down, across = slice(1, None), slice(None, -1)
    whole = slice(None)
    for one, two in (
        ((across, whole), (down, whole)),
        ((whole, across), (whole, down)),
        ((across, across), (down, down)),
        ((across, down), (down, across)),
    ):
        a, b = basins[one], basins[two]
        met = (a != b) & (a > 0) & (b > 0)
        low = np.minimum(height[one], height[two])[met]
        for pair, saddle in zip(np.sort(np.stack([a[met], b[met]], 1)).tolist(), low.tolist(), strict=True):
            key = (pair[0], pair[1])
            found[key] = max(found.get(key, 0.0), saddle)
    return found
