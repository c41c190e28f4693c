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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from kshot.ops.hulls import Hull
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

    area: int
    peak: float
    """The highest of its pixels."""
    value: float
    """Pixels times likeness of the best cut of it."""
    least: float
    """Likeness of the least like object of that cut, 0..1."""
    children: tuple[int, ...] = ()
    """The two nodes that the best cut is that of; without, it is one object."""


def split_by_shape(inside: Crop, score: NDArray[np.float32] | None, shape: ObjectShape) -> Iterator[tuple[Box, Crop]]:
    """The objects of one component (h, w), each as its box in it and its mask there; score: (h, w) in 0..1.

    Time and memory grow with the basins and the pixels, not with their square: ten thousand objects, and as many
    fragments of a ragged mask, may touch in one component.
    """
    from scipy.ndimage import find_objects

    whole = int(inside.sum())
    if shape.likeness(whole, solidity(inside)) >= _LIKE:
        yield (slice(0, inside.shape[0]), slice(0, inside.shape[1])), inside
        return
    basins, height = _basins(inside, score)
    owners = _best_cut(basins, height, shape)
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


def _best_cut(basins: NDArray[np.int32], height: NDArray[np.float64], shape: ObjectShape) -> NDArray[np.int32]:
    """(n + 1,) the number from 1 of the object that each basin is of, and 0 for the background.

    A pair waits in the queue by its saddle. When its turn comes, its basins may lie in nodes that are higher and newer,
    so that its turn is a later one, and it waits again. So no join looks at all neighbours of what it joins, nor at its
    pixels: a node of most of the image may take in thousands of fragments.
    """
    nodes, hulls = _leaves(basins, height, shape)  # basins, then joins in their order; hulls of outermost nodes alone
    holder, parents = list(range(len(nodes))), [-1] * len(nodes)

    def outermost(index: int) -> int:
        while holder[index] != index:
            holder[index] = index = holder[holder[index]]
        return index

    def turn(saddle: float, one: int, other: int) -> tuple[float, int, int, float]:
        return -saddle / min(nodes[one].peak, nodes[other].peak), min(one, other), max(one, other), saddle

    queue = [turn(saddle, one - 1, other - 1) for saddle, one, other in _saddles(basins, height)]
    heapify(queue)
    while queue:
        due = heappop(queue)
        one, other = outermost(due[1]), outermost(due[2])
        if one == other or shape.too_large(nodes[one].area, nodes[other].area):
            continue
        if (now := turn(due[3], one, other)) != due:
            heappush(queue, now)
            continue
        number = len(nodes)
        hulls[number] = hulls.pop(one).joined(hulls.pop(other))
        nodes.append(_joined(nodes, (one, other), hulls[number], shape))
        holder[one] = holder[other] = parents[one] = parents[other] = number
        holder.append(number)
        parents.append(-1)
    return np.array([0, *_numbered(nodes, parents)[: basins.max()]], np.int32)


def _leaves(
    basins: NDArray[np.int32], height: NDArray[np.float64], shape: ObjectShape
) -> tuple[list[_Node], dict[int, Hull]]:
    """A node and a hull for each basin."""
    from scipy.ndimage import maximum

    areas = np.bincount(basins.ravel())[1:].tolist()
    peaks = np.atleast_1d(maximum(height, basins, range(1, len(areas) + 1))).tolist()
    hulls = dict(enumerate(Hull.of_each(basins)))
    nodes = []
    for area, peak, hull in zip(areas, peaks, hulls.values(), strict=True):
        like = shape.likeness(area, area / hull.area)
        nodes.append(_Node(area, peak, area * like, like))
    return nodes, hulls


def _joined(nodes: Sequence[_Node], children: tuple[int, int], hull: Hull, shape: ObjectShape) -> _Node:
    first, second = (nodes[child] for child in children)
    area, peak = first.area + second.area, max(first.peak, second.peak)
    like, apart = shape.likeness(area, area / hull.area), first.value + second.value
    least = min(first.least, second.least)
    if least >= like and apart > area * like:
        return _Node(area, peak, apart, least, children)
    return _Node(area, peak, area * like, like)


def _numbered(nodes: Sequence[_Node], parents: Sequence[int]) -> list[int]:
    """The number from 1 of the object that each node lies in; 0 for those of several. parents: -1 for none."""
    numbers, count = [0] * len(nodes), 0
    open_ones = [index for index in reversed(range(len(nodes))) if parents[index] < 0]
    while open_ones:
        index = open_ones.pop()
        open_ones += reversed(nodes[index].children)
        if not nodes[index].children:
            count += 1
            numbers[index] = count
    for index in reversed(range(len(nodes))):
        if parents[index] >= 0 and not numbers[index]:
            numbers[index] = numbers[parents[index]]
    return numbers


def around(first: Box, second: Box) -> Box:
    """The smallest box around two."""
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    return rows, columns


def _saddles(basins: NDArray[np.int32], height: NDArray[np.float64]) -> Iterator[tuple[float, int, int]]:
    """The highest of the common border's pixels, the lower one of two, of each pair of neighbouring basins."""
    pairs, lows = list[NDArray[np.int64]](), list[NDArray[np.float64]]()
    down, across = slice(1, None), slice(None, -1)
    whole, count = slice(None), int(basins.max()) + 1
    for one, two in (
        ((across, whole), (down, whole)),
        ((whole, across), (whole, down)),
        ((across, across), (down, down)),
        ((across, down), (down, across)),
    ):
        a, b = basins[one], basins[two]
        met = (a != b) & (a > 0) & (b > 0)
        pairs.append(np.minimum(a, b)[met].astype(np.int64) * count + np.maximum(a, b)[met])
        lows.append(np.minimum(height[one], height[two])[met])
    found, own = np.unique(np.concatenate(pairs), return_inverse=True)
    saddles = np.zeros(len(found))
    np.maximum.at(saddles, own, np.concatenate(lows))
    return zip(saddles.tolist(), *(side.tolist() for side in np.divmod(found, count)), strict=True)
