"""Soft masks on the grid from boxes, points, scribbles, or no prompt at all, by region growing on the features.

1. A prompt becomes a `PromptPrior`: which patches likely show the object, and which likely do not.
2. Every patch token is projected on the line between the mean tokens of the two: a value in 0..1.
3. The random walker (`ops.random_walker`) smooths these values; marked patches keep theirs.
4. A cut midway between Otsu's and a fixed one, and a sigmoid, make a soft mask.

The constants were chosen on half of the development images (benchmarks/accuracy/prompts.py). Whitened and kernel
discriminants and normalised cuts, as in TokenCut (Wang et al., CVPR 2022), were no better.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.ops.geometry import FeatureMap, Frame, coverage
from kshot.ops.random_walker import FeatureGraph, build_feature_graph

_SLOPE = 12.0  # of the sigmoid, per distance between the two mean tokens
_CUT = 0.55  # between the background's mean token at 0 and the object's at 1
_MARK_SHARE = 0.2  # of marked patches in the mean token of their side
_MARK_CONFIDENCE = 10.0  # of marked patches in the random walker; others have 1
_BOX_STEEPNESS = 4.0  # of the prior that an object lies in the middle of its box
_AROUND_STEEPNESS = 4.0  # of the prior that the background that matters lies close to the box
_POINT_RADIUS = 0.06  # that a point stands for, in sides of a square of the image's area
_NEAR_RADIUS = 0.35  # within which a point's object is likelier, in the same unit
_NEAR_WEIGHT = 0.5  # how much likelier
_CENTRE_STEEPNESS = 6.0  # of the prior that an object lies in the middle of an image without a prompt
_CENTRE_PRIOR_WEIGHT = 1.0  # how much this prior counts
_MIN_DISTANCE = 1e-5  # squared, of the two mean tokens; below it nothing can be told apart
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class PromptPrior:
    """What a prompt says about the n patches, before the features are looked at."""

    inside: Tensor
    """(n,) in 0..1: the fraction of each patch that may show the object."""
    likely: Tensor
    """(n,) weight of each patch in the mean token of the object."""
    unlikely: Tensor
    """(n,) weight of each patch in the mean token of the background."""
    positive: Tensor
    """(n,) bool: patches that are marked as the object."""
    negative: Tensor
    """(n,) bool: patches that are marked as background."""
    offset: Tensor | float = 0.0
    """(n,) added to the order."""


def grow_boxes(
    features: FeatureMap,
    boxes: NDArray[np.float64],
    points: NDArray[np.float64],
    negative_points: NDArray[np.float64],
    graph: FeatureGraph | None = None,
) -> Tensor:
    """Soft mask (gh, gw) in 0..1 of the objects in boxes (n, 4), x0 y0 x1 y1 in pixels.

    The mask of a patch is at most the fraction of it that lies in a box. points (p, 2) and negative_points (q, 2), x y
    in pixels, lie on the objects and off them. Each box gives a mask of its own; the largest value counts.
    graph: that of these features, where it was built before.
    """
    graph = graph or build_feature_graph(features)
    grown = [_grow_box(features, graph, box, points, negative_points) for box in boxes]
    return torch.stack(grown).amax(0)


def grow_marks(
    features: FeatureMap,
    points: NDArray[np.float64],
    negative_points: NDArray[np.float64],
    graph: FeatureGraph | None = None,
) -> Tensor:
    """Soft mask (gh, gw) in 0..1 of the objects that points (p, 2) lie on, p > 0, and negative_points (q, 2) do not.

    Points are x y in pixels. graph: that of these features, where it was built before.
    """
    frame, allowed = features.frame, coverage(features.frame).flatten()
    positive = _marked(frame, points)
    negative = _marked(frame, negative_points) & ~positive
    away = _distance(frame, positive)
    spots = positive + 0.5 * torch.exp(-away / (2 * _POINT_RADIUS**2)) * ~negative
    if negative.any():
        spots = torch.where(
            positive, spots, spots * (1 - torch.exp(-_distance(frame, negative) / (2 * _POINT_RADIUS**2)))
        )
    near = torch.exp(-away / (2 * _NEAR_RADIUS**2))
    prior = PromptPrior(allowed, spots * allowed, (1 - near) * allowed, positive, negative, _NEAR_WEIGHT * (near - 1))
    return _mask(_decide(features, graph or build_feature_graph(features), prior), allowed, frame)


def salient(features: FeatureMap) -> Tensor:
    """Soft mask (gh, gw) in 0..1 of the salient region of an image, without a prompt.

    The prior is the backbone's objectness, or else the middle of the image. Two rounds on the features refine it.
    """
    frame, allowed = features.frame, coverage(features.frame).flatten()
    height, width = frame.size_hw
    middle = _centre(frame, np.array([0.0, 0.0, width, height]), _CENTRE_STEEPNESS)
    objectness = middle if features.objectness is None else features.objectness.flatten().to(middle)
    nowhere = torch.zeros_like(objectness, dtype=torch.bool)
    likely, unlikely = objectness**2 * allowed, (1 - objectness) ** 2 * allowed
    graph = build_feature_graph(features)
    for _ in range(2):
        prior = PromptPrior(allowed, likely, unlikely, nowhere, nowhere, _CENTRE_PRIOR_WEIGHT * (objectness - 0.5))
        found = _decide(features, graph, prior)
        likely, unlikely = found * allowed, ((1 - objectness) ** 2 + 1 - found) * allowed
    return _mask(found, allowed, frame)


def _grow_box(
    features: FeatureMap,
    graph: FeatureGraph,
    box: NDArray[np.float64],
    points: NDArray[np.float64],
    away: NDArray[np.float64],
) -> Tensor:
    frame, whole = features.frame, coverage(features.frame).flatten()
    inside = _inside(frame, box)
    positive = _marked(frame, points) & (inside > 0)
    negative = _marked(frame, away) & ~positive
    middle = _centre(frame, box, _BOX_STEEPNESS)
    outside = (whole - inside).clamp(min=0) * _centre(frame, box, _AROUND_STEEPNESS).clamp(min=1e-3)
    if (whole - inside).sum() < 0.05 * whole.sum():
        # The box is the whole image: its rim is the best guess at the background.
        outside = outside + inside * (1 - middle) ** 2
    likely = inside * torch.where(positive, torch.ones_like(middle), middle)
    prior = PromptPrior(inside, likely, outside, positive, negative)
    return _mask(_decide(features, graph, prior), inside, frame)


def _decide(features: FeatureMap, graph: FeatureGraph, prior: PromptPrior) -> Tensor:
    """(n,) in 0..1: how certainly each patch shows the object."""
    order = _order(features.tokens, prior)
    marked = prior.positive | prior.negative
    if order is None:
        found = prior.likely / prior.likely.max().clamp(min=_TINY)
    else:
        order = torch.where(marked, prior.positive.to(order), order + prior.offset)
        smooth = graph.random_walker(order, torch.where(marked, _MARK_CONFIDENCE, 1.0))
        cut = (_CUT + _otsu(smooth[prior.inside > 0].clamp(0, 1))) / 2
        found = torch.sigmoid(_SLOPE * (smooth - cut))
    return torch.where(marked, prior.positive.to(found), found)


def _order(tokens: Tensor, prior: PromptPrior) -> Tensor | None:
    """(n,): where each token lies between background at 0 and object at 1; None if the two look the same."""
    likely, unlikely = _shares(prior.likely), _shares(prior.unlikely)
    if prior.positive.any():
        likely = (1 - _MARK_SHARE) * likely + _MARK_SHARE * _shares(prior.positive.to(likely))
    if not prior.negative.any():
        return _between(tokens, unlikely, likely)
    against = _shares(prior.negative.to(unlikely))
    order = _between(tokens, (1 - _MARK_SHARE) * unlikely + _MARK_SHARE * against, likely)
    # A token more similar to negative than to positive marks is background, whatever the rest looks like.
    nearer = _between(tokens, against, _shares(prior.positive.to(likely)) if prior.positive.any() else likely)
    return order if order is None or nearer is None else torch.minimum(order, nearer)


def _between(tokens: Tensor, low: Tensor, high: Tensor) -> Tensor | None:
    """(n,): where tokens lie on the line from one weighted mean at 0 to the other at 1; None if these are the same."""
    along = tokens @ ((high - low) @ tokens)
    start, end = low @ along, high @ along
    return (along - start) / (end - start) if float(end - start) > _MIN_DISTANCE else None


def _shares(weights: Tensor) -> Tensor:
    return weights / weights.sum().clamp(min=_TINY)


def _otsu(values: Tensor) -> Tensor:
    """The cut of values (n,) into the two groups with the largest variance between them (Otsu, 1979)."""
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
    """(gh, gw): `found` (n,), at most `inside` (n,), without the padding; the likeliest patch counts as found."""
    found = found.clone()
    # Where negative marks cover the whole box, the patch that is most inside is the least bad answer.
    found[((found + _TINY) * inside).argmax()] = 1
    return torch.minimum(found * coverage(frame).flatten(), inside).reshape(frame.grid_hw)


def _marked(frame: Frame, points: NDArray[np.float64]) -> Tensor:
    """(n,) bool: the patches that points (p, 2) lie in."""
    plane = torch.zeros(frame.grid_hw, dtype=torch.bool)
    for x, y in points:
        plane[frame.patch_at(x, y)] = True
    return plane.flatten()


def _distance(frame: Frame, marked: Tensor) -> Tensor:
    """(n,): squared distance to the nearest marked patch (at least one), in sides of a square grid of the same area."""
    from scipy.ndimage import distance_transform_edt  # slow to import, and of prompts alone

    rows, columns = frame.grid_hw
    far = distance_transform_edt(~marked.reshape(rows, columns).numpy())
    return torch.from_numpy(far).float().flatten() ** 2 / (rows * columns)


def _inside(frame: Frame, box: NDArray[np.float64]) -> Tensor:
    """(n,) in 0..1: the fraction of each patch in the box; a box outside of the image gets the nearest patch."""
    x0, y0, x1, y1 = box
    rows = _overlap(y0, y1, frame.size_hw[0], frame.inner_hw[0], frame.patch)
    columns = _overlap(x0, x1, frame.size_hw[1], frame.inner_hw[1], frame.patch)
    inside = (rows[:, None] * columns).flatten()
    if float(inside.sum()) < 1e-3:
        centre = np.array([[(x0 + x1) / 2, (y0 + y1) / 2]])
        return _marked(frame, centre) * coverage(frame).flatten()
    return inside


def _overlap(start: float, end: float, pixels: int, inner: int, patch: int) -> Tensor:
    """(patches,): the fraction of each patch, along one side of the image, between two pixel positions."""
    scale = inner / pixels
    edges = torch.arange(-(-inner // patch) + 1, dtype=torch.float64) * patch
    shared = edges[1:].clamp(max=min(end * scale, inner)) - edges[:-1].clamp(min=max(start * scale, 0))
    return (shared.clamp(min=0) / patch).float()


def _centre(frame: Frame, box: NDArray[np.float64], steepness: float) -> Tensor:
    """(n,) in 0..1: a Gaussian in the middle of a box, exp(-steepness / 4) at the middle of each of its sides."""
    x0, y0, x1, y1 = box
    height, width = frame.inner_hw[0] / frame.size_hw[0], frame.inner_hw[1] / frame.size_hw[1]
    y, x = ((torch.arange(patches) + 0.5) * frame.patch for patches in frame.grid_hw)
    down = (y / height - (y0 + y1) / 2) / max(y1 - y0, 1)
    right = (x / width - (x0 + x1) / 2) / max(x1 - x0, 1)
    return torch.exp(-steepness * (down[:, None] ** 2 + right**2)).float().flatten()


def points_along(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points at most four pixels apart along a polyline (n, 2)."""
    pieces = [line[:1]]
    for start, end in pairwise(line):
        steps = max(1, int(np.ceil(np.abs(end - start).max() / 4)))
        pieces.append(start + (end - start) * (np.arange(1, steps + 1) / steps)[:, None])
    return np.concatenate(pieces)
