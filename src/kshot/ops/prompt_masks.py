"""Boxes, points, strokes and nothing become soft masks on the grid, by region growing on the features.

All prompts go the same way. A prompt says which cells are likely the object and which are likely not. The difference
of the two mean features orders the cells; the order settles on the affinity graph (`ops.affinity`), where marked
cells hold their value; a cut between Otsu's and the middle makes it a soft mask. The constants were chosen on half of
the development images (benchmarks/accuracy/prompts.py): whitened and kernel discriminants and normalised cuts, as in
TokenCut (Wang et al., CVPR 2022), did no better.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from kshot.ops.geometry import FeatureMap, Frame, coverage
from kshot.ops.random_walker import Graph, tie

_SLOPE = 12.0  # of the soft mask at the cut, per distance between the two means
_CUT = 0.55  # between the background's mean at 0 and the object's at 1
_MARKED = 0.2  # share that marked cells get of the mean they belong to
_HOLD = 10.0  # trust in a marked cell; others have 1
_CENTRE = 4.0  # steepness of the prior that an object lies in the middle of its box
_AROUND = 4.0  # the background that matters lies close to the box: falls with the same steepness as the centre
_SPOT = 0.06  # radius that a point stands for, in sides of the image's area
_REACH = 0.35  # radius within which a point's object is likelier, the same
_LOCAL = 0.5  # how much likelier
_MIDDLE = 6.0  # steepness of the centre prior of a picture without a prompt
_LEAN = 1.0  # how much the centre counts there
_FLAT = 1e-5  # squared distance of the two means below which there is nothing to see
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class _Belief:
    """What a prompt says of the n cells.

    inside: (n,) in 0..1, the part of each cell that may show the object. likely, unlikely: (n,) weights of the cells
    that show the object and the background. positive, negative: (n,) bool, the marked cells. lean: added to the order.
    """

    inside: Tensor
    likely: Tensor
    unlikely: Tensor
    positive: Tensor
    negative: Tensor
    lean: Tensor | float = 0.0


def grow_boxes(
    features: FeatureMap, boxes: NDArray[np.float64], points: NDArray[np.float64], negative_points: NDArray[np.float64]
) -> Tensor:
    """Soft mask (gh, gw) in 0..1 of the objects in boxes (n, 4), x0 y0 x1 y1 in pixels.

    Outside of the boxes it is zero, and a cell partly inside is at most the part inside. points (p, 2) and
    negative_points (q, 2), x y in pixels, lie on the objects and off them. Boxes grow one by one, the largest value
    wins.
    """
    graph = tie(features)
    grown = [_grow_box(features, graph, box, points, negative_points) for box in boxes]
    return torch.stack(grown).amax(0)


def grow_marks(features: FeatureMap, points: NDArray[np.float64], negative_points: NDArray[np.float64]) -> Tensor:
    """Soft mask (gh, gw) in 0..1 of what points (p, 2), p > 0, lie on and negative_points (q, 2) don't; x y, pixels."""
    frame, allowed = features.frame, coverage(features.frame).flatten()
    positive = _marked(frame, points)
    negative = _marked(frame, negative_points) & ~positive
    away = _distance(frame, positive)
    spots = positive + 0.5 * torch.exp(-away / (2 * _SPOT**2)) * ~negative
    if negative.any():
        spots = torch.where(positive, spots, spots * (1 - torch.exp(-_distance(frame, negative) / (2 * _SPOT**2))))
    near = torch.exp(-away / (2 * _REACH**2))
    belief = _Belief(allowed, spots * allowed, (1 - near) * allowed, positive, negative, _LOCAL * (near - 1))
    return _mask(_decide(features, tie(features), belief), allowed, frame)


def salient(features: FeatureMap) -> Tensor:
    """Soft mask (gh, gw) in 0..1 of the region that stands out, where nothing was marked.

    The backbone's objectness is the prior where it has one, else the middle of the image is; it is refined twice by
    the features themselves.
    """
    frame, allowed = features.frame, coverage(features.frame).flatten()
    height, width = frame.size_hw
    middle = _centre(frame, np.array([0.0, 0.0, width, height]), _MIDDLE)
    prior = middle if features.objectness is None else features.objectness.flatten().to(middle)
    nowhere = torch.zeros_like(prior, dtype=torch.bool)
    likely, unlikely = prior**2 * allowed, (1 - prior) ** 2 * allowed
    graph = tie(features)
    for _ in range(2):
        belief = _Belief(allowed, likely, unlikely, nowhere, nowhere, _LEAN * (prior - 0.5))
        found = _decide(features, graph, belief)
        likely, unlikely = found * allowed, ((1 - prior) ** 2 + 1 - found) * allowed
    return _mask(found, allowed, frame)


def _grow_box(
    features: FeatureMap, graph: Graph, box: NDArray[np.float64], points: NDArray[np.float64], away: NDArray[np.float64]
) -> Tensor:
    frame, whole = features.frame, coverage(features.frame).flatten()
    inside = _inside(frame, box)
    positive = _marked(frame, points) & (inside > 0)
    negative = _marked(frame, away) & ~positive
    middle = _centre(frame, box, _CENTRE)
    outside = (whole - inside).clamp(min=0) * _centre(frame, box, _AROUND).clamp(min=1e-3)
    if (whole - inside).sum() < 0.05 * whole.sum():
        # The box is the image: its own rim is the best guess at the background.
        outside = outside + inside * (1 - middle) ** 2
    likely = inside * torch.where(positive, torch.ones_like(middle), middle)
    belief = _Belief(inside, likely, outside, positive, negative)
    return _mask(_decide(features, graph, belief), inside, frame)


def _decide(features: FeatureMap, graph: Graph, belief: _Belief) -> Tensor:
    """(n,) in 0..1: how surely each cell shows the object."""
    order = _order(features.tokens, belief)
    marked = belief.positive | belief.negative
    if order is None:
        found = belief.likely / belief.likely.max().clamp(min=_TINY)
    else:
        order = torch.where(marked, belief.positive.to(order), order + belief.lean)
        settled = graph.settle(order, torch.where(marked, _HOLD, 1.0))
        cut = (_CUT + _otsu(settled[belief.inside > 0].clamp(0, 1))) / 2
        found = torch.sigmoid(_SLOPE * (settled - cut))
    return torch.where(marked, belief.positive.to(found), found)


def _order(tokens: Tensor, belief: _Belief) -> Tensor | None:
    """(n,): the place of each cell between the background at 0 and the object at 1; None if they look the same."""
    likely, unlikely = _shares(belief.likely), _shares(belief.unlikely)
    if belief.positive.any():
        likely = (1 - _MARKED) * likely + _MARKED * _shares(belief.positive.to(likely))
    if not belief.negative.any():
        return _between(tokens, unlikely, likely)
    against = _shares(belief.negative.to(unlikely))
    order = _between(tokens, (1 - _MARKED) * unlikely + _MARKED * against, likely)
    # What looks more like a negative mark than like a positive one is out, however far it is from the rest.
    nearer = _between(tokens, against, _shares(belief.positive.to(likely)) if belief.positive.any() else likely)
    return order if order is None or nearer is None else torch.minimum(order, nearer)


def _between(tokens: Tensor, low: Tensor, high: Tensor) -> Tensor | None:
    """(n,): the place of tokens on the line from one weighted mean, 0, to the other, 1; None if they are the same."""
    along = tokens @ ((high - low) @ tokens)
    start, end = low @ along, high @ along
    return (along - start) / (end - start) if float(end - start) > _FLAT else None


def _shares(weights: Tensor) -> Tensor:
    return weights / weights.sum().clamp(min=_TINY)


def _otsu(values: Tensor) -> Tensor:
    """The cut of values (n,) into two groups that lie furthest apart (Otsu, 1979)."""
    ordered = values.sort().values
    count = len(ordered)
    if count == 1:
        return ordered[0]
    below = torch.arange(1, count).to(ordered)
    sums = ordered.cumsum(0)
    apart = (sums[-1] - sums[:-1]) / (count - below) - sums[:-1] / below
    split = int((below * (count - below) * apart**2).argmax())
    return (ordered[split] + ordered[split + 1]) / 2


def _mask(found: Tensor, inside: Tensor, frame: Frame) -> Tensor:
    """(gh, gw): found (n,) less the padding, at most `inside` (n,). The likeliest cell shows the object for certain."""
    found = found.clone()
    # Negative marks may cover the whole box: then the cell most inside it is the least bad answer.
    found[((found + _TINY) * inside).argmax()] = 1
    return torch.minimum(found * coverage(frame).flatten(), inside).reshape(frame.grid_hw)


def _marked(frame: Frame, points: NDArray[np.float64]) -> Tensor:
    """(n,) bool: the cells that points (p, 2) lie in."""
    plane = torch.zeros(frame.grid_hw, dtype=torch.bool)
    for x, y in points:
        plane[frame.cell_of(x, y)] = True
    return plane.flatten()


def _distance(frame: Frame, marked: Tensor) -> Tensor:
    """(n,): squared distance to the nearest marked cell (one at least), in sides of a square grid of the same area."""
    rows, columns = frame.grid_hw
    far = distance_transform_edt(~marked.reshape(rows, columns).numpy())
    return torch.from_numpy(far).float().flatten() ** 2 / (rows * columns)


def _inside(frame: Frame, box: NDArray[np.float64]) -> Tensor:
    """(n,) in 0..1: the part of each cell in the box; a box that touches the image from outside gets a cell."""
    x0, y0, x1, y1 = box
    rows = _overlap(y0, y1, frame.size_hw[0], frame.inner_hw[0], frame.patch)
    columns = _overlap(x0, x1, frame.size_hw[1], frame.inner_hw[1], frame.patch)
    inside = (rows[:, None] * columns).flatten()
    if float(inside.sum()) < 1e-3:
        centre = np.array([[(x0 + x1) / 2, (y0 + y1) / 2]])
        return _marked(frame, centre) * coverage(frame).flatten()
    return inside


def _overlap(start: float, end: float, pixels: int, inner: int, patch: int) -> Tensor:
    """(cells,): the part of each cell of one side between two pixel positions."""
    scale = inner / pixels
    edges = torch.arange(-(-inner // patch) + 1, dtype=torch.float64) * patch
    shared = edges[1:].clamp(max=min(end * scale, inner)) - edges[:-1].clamp(min=max(start * scale, 0))
    return (shared.clamp(min=0) / patch).float()


def _centre(frame: Frame, box: NDArray[np.float64], steepness: float) -> Tensor:
    """(n,) in 0..1: a Gaussian in the middle of a box, exp(-steepness / 4) at the middle of each of its sides."""
    x0, y0, x1, y1 = box
    height, width = frame.inner_hw[0] / frame.size_hw[0], frame.inner_hw[1] / frame.size_hw[1]
    y, x = ((torch.arange(cells) + 0.5) * frame.patch for cells in frame.grid_hw)
    down = (y / height - (y0 + y1) / 2) / max(y1 - y0, 1)
    right = (x / width - (x0 + x1) / 2) / max(x1 - x0, 1)
    return torch.exp(-steepness * (down[:, None] ** 2 + right**2)).float().flatten()
