"""Leave-one-out: each support of a class is searched for the class with the help of the others.

A class with a single support is searched in each half of its mask with the help of the other half. What is found
calibrates thresholds, weights and scores before any query is seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kshot.io.tensor_file import Learned
from kshot.methods._support_tokens import log_ratios, soft_ious, top_k_log_ratio
from kshot.methods.base import FeatureSpec, Support, Task
from kshot.ops.geometry import coverage, near_pairs
from kshot.ops.similarity import DENSITY_FLOOR
from kshot.ops.spread import evenly_spread

CANDIDATE_THRESHOLDS = torch.tensor([-2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
_NEIGHBOURHOOD = 2  # rows and columns around a patch whose tokens resemble it only because they lie close
_MAX_LOG_RATIO = 5.0
_WEAK_FRACTION, _MIN_SAMPLES = 0.25, 3  # a warning needs so many supports, and an IoU below this fraction of the median


class EnsembleMember(NamedTuple):
    """A method with all that its tasks need beside supports."""

    task: type[Task]
    settings: Any
    classes: tuple[str, ...]
    feature_spec: FeatureSpec
    learned: Learned | None = None

    def fit(self, supports: Sequence[Support]) -> Task:
        """A task of this method, which sees the crops of supports that have some, and not the whole images."""
        seen = tuple(view for support in supports for view in support.views)
        return self.task(self.classes, seen, self.feature_spec, self.settings, self.learned)


class HeldOutScores(NamedTuple):
    """What the members of an ensemble score for one class in a support (or half of one) that they have not seen."""

    logits: Tensor
    """(members, n) logits of the class over the background."""
    mask: Tensor
    """(n,) in 0..1, the true soft mask."""
    valid_mask: Tensor
    """(n,) in 0..1, the labelled fraction of each patch."""

    @property
    def ious(self) -> Tensor:
        """(members, t) IoU on the grid at each of `CANDIDATE_THRESHOLDS`."""
        above = (self.logits[:, None] > CANDIDATE_THRESHOLDS[:, None]).float()  # (members, t, n)
        return soft_ious(above, self.mask, self.valid_mask)


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """The result of `leave_one_out`, class by class."""

    left_out: tuple[tuple[int, ...], ...]
    """For each class the indices of the supports that were left out in turn; none for a class with one support."""
    scores: tuple[tuple[HeldOutScores, ...], ...]
    """For each class one entry for each support, or half of the only support, that was left out."""
    top_k_log_ratios: Tensor
    """(N,) the top-k mean log-likelihood ratio of each class where it was left out, averaged."""

    @property
    def ious(self) -> tuple[Tensor | None, ...]:
        """For each class (samples, members, t), or None where nothing could be left out."""
        return tuple(torch.stack([one.ious for one in samples]) if samples else None for samples in self.scores)

    def warnings(self, classes: Sequence[str], supports: Sequence[Support]) -> tuple[str, ...]:
        """A line for each support in which the others find almost nothing of its class; supports: as fitted."""
        lines = []
        for name, left_out, ious in zip(classes, self.left_out, self.ious, strict=True):
            best = dict(zip(left_out, ious.amax((1, 2)).tolist() if left_out and ious is not None else (), strict=True))
            median = sorted(best.values())[len(best) // 2] if len(best) >= _MIN_SAMPLES else 0.0
            lines += [
                f"support {supports[index].number or index + 1} ({name}): the other supports find it with an IoU of "
                f"only {iou:.2f}, where {median:.2f} is typical; look at its mask, or leave it out"
                for index, iou in sorted(best.items())
                if iou < _WEAK_FRACTION * median
            ]
        return tuple(lines)


def leave_one_out(
    supports: Sequence[Support], members: Sequence[EnsembleMember], max_supports: int, fraction: float, kappa: float
) -> LeaveOneOut:
    """Search for each class in up to `max_supports` of its supports, each left out in turn.

    These are of all sizes: in the largest ones alone a mask that runs over its object costs little IoU, and thresholds
    would be too low. A support is searched with the help of at most twice as many others (see `_pool`), so the work
    grows linearly with the classes. members: the first is a `density`, whose support tokens give the top-k log ratio.
    fraction, kappa: of `top_k_log_ratio`.
    """
    ways = supports[0].masks.shape[0]
    ratios = torch.full((ways,), _MAX_LOG_RATIO)
    left_out: list[tuple[int, ...]] = [()] * ways
    scores: list[tuple[HeldOutScores, ...]] = [()] * ways
    searches: dict[tuple[int, tuple[int, ...]], list[int]] = {}  # ways to search for, by support and pool
    for way in range(ways):
        showing = supports_showing(supports, way)
        if len(showing) == 1:
            ratios[way] = _within_one_support(supports[showing[0]], way, kappa, fraction)
            scores[way] = _halves(supports[showing[0]], way, members)
        elif showing:
            helpers = evenly_spread(showing, 2 * max_supports)
            left_out[way], pool = evenly_spread(helpers, max_supports), _pool(supports, helpers, 2 * max_supports)
            for index in left_out[way]:
                searches.setdefault((index, pool), []).append(way)
    found: dict[tuple[int, int], tuple[HeldOutScores, Tensor]] = {}
    for (index, pool), ways_sought in searches.items():
        of_ways = _search(supports, index, pool, ways_sought, members, fraction, kappa)
        found |= {(way, index): of_way for way, of_way in zip(ways_sought, of_ways, strict=True)}
    for way in (way for way in range(ways) if left_out[way]):
        scores[way] = tuple(found[way, index][0] for index in left_out[way])
        ratios[way] = torch.stack([found[way, index][1] for index in left_out[way]]).mean()
    return LeaveOneOut(tuple(left_out), tuple(scores), ratios)


def each_left_out(supports: Sequence[Support], max_supports: int) -> Iterator[tuple[Support, list[Support]]]:
    """Up to `max_supports` supports whose classes others show too, spread evenly, each with all the others.

    Which ones are chosen does not depend on the order of the supports.
    """
    shows = torch.stack([support.masks.flatten(1).amax(1) > 0 for support in supports])  # (s, N)
    often = shows.sum(0) > 1
    fit = [i for i, row in enumerate(shows) if bool(row.any()) and bool(often[row].all())]
    fit.sort(key=lambda i: float(supports[i].features.features.double().sum()))
    for place in torch.linspace(0, len(fit) - 1, min(max_supports, len(fit))).tolist():
        index = fit[round(place)]
        yield supports[index], [support for other, support in enumerate(supports) if other != index]


def supports_showing(supports: Sequence[Support], way: int) -> list[int]:
    """Indices of the supports that show a class, the one with most of it first: the caller's order does not matter."""
    areas = {index: float(support.masks[way].sum()) for index, support in enumerate(supports)}
    return sorted((index for index, area in areas.items() if area > 0), key=lambda index: areas[index], reverse=True)


def _pool(supports: Sequence[Support], showing: Sequence[int], most: int) -> tuple[int, ...]:
    """Indices, in the caller's order, of at most `most` supports that help to find a class.

    Supports that show the class come first, then those that show no class at all: their background is every class's.
    """
    empty = [index for index, support in enumerate(supports) if not bool(support.masks.any())]
    empty.sort(key=lambda index: float(supports[index].features.features.sum()))  # independent of the caller's order
    return tuple(sorted([*showing, *empty][:most]))


def _only_shown_classes(
    supports: Sequence[Support], members: Sequence[EnsembleMember]
) -> tuple[list[Support], list[EnsembleMember], list[int]]:
    """Supports and members reduced to the classes that the supports show, and these classes' ways."""
    shown = [way for way in range(supports[0].masks.shape[0]) if any(bool(s.masks[way].any()) for s in supports)]
    reduced = [support.of_ways(shown) for support in supports]
    return reduced, [m._replace(classes=tuple(m.classes[way] for way in shown)) for m in members], shown


def _search(
    supports: Sequence[Support],
    index: int,
    pool: Sequence[int],
    ways: Sequence[int],
    members: Sequence[EnsembleMember],
    fraction: float,
    kappa: float,
) -> list[tuple[HeldOutScores, Tensor]]:
    """For each way, scores and top-k log ratio in the support `index` with the help of the others in the pool.

    Classes that the pool does not show are left out, since they would only cost time.
    """
    support, (reduced, members, shown) = supports[index], _only_shown_classes([supports[i] for i in pool], members)
    rest = [other for i, other in zip(pool, reduced, strict=True) if i != index]
    first = members[0].fit(rest)
    logits = torch.stack(
        [first.score(support.features), *(member.fit(rest).score(support.features) for member in members[1:])]
    )
    found = []
    for way in ways:
        row = shown.index(way)
        ratio = top_k_log_ratio(first.fitted, support.features, logits[0], row, fraction, kappa)
        found.append((_held_out(logits[:, row + 1], support, way), ratio))
    return found


def _held_out(logits: Tensor, support: Support, way: int) -> HeldOutScores:
    """Logits (members, gh, gw) of one class beside the support's own mask of it."""
    return HeldOutScores(logits.flatten(1), support.masks[way].flatten(), support.valid_mask.flatten())


def _halves(support: Support, way: int, members: Sequence[EnsembleMember]) -> tuple[HeldOutScores, ...]:
    """The upper, lower, left and right half of a class's mask, each searched with the help of the opposite half."""
    reduced, members, ways = _only_shown_classes([support], members)
    support, way = reduced[0], ways.index(way)
    mask = support.masks[way]
    upper = (mask.sum(1, keepdim=True).cumsum(0) <= mask.sum() / 2).expand_as(mask)
    left = (mask.sum(0, keepdim=True).cumsum(1) <= mask.sum() / 2).expand_as(mask)
    found = []
    for half in (upper, ~upper, left, ~left):
        shown, hidden = (
            replace(support, masks=support.masks * side, valid_mask=support.valid_mask * side, crops=())
            for side in (half, ~half)
        )
        if min(float(shown.masks[way].sum()), float(hidden.masks[way].sum())) > 0:
            logits = [member.fit([shown]).score(support.features)[way + 1] for member in members]
            found.append(_held_out(torch.stack(logits), hidden, way))
    return tuple(found)


def _within_one_support(support: Support, way: int, kappa: float, fraction: float) -> Tensor:
    """() top-k log ratio of the support itself, where each patch is compared with those outside its neighbourhood."""
    tokens, masks = support.features.tokens, support.masks.flatten(1)
    inside = masks[way]
    outside = support.background.flatten() + masks.sum(0) - inside
    near = near_pairs(support.features.grid_hw, _NEIGHBOURHOOD)
    kernel = ((tokens @ tokens.T - 1) * kappa).exp().masked_fill(near, 0.0)
    sides = torch.stack([outside, inside], 1)
    means = kernel @ sides / sides.sum(0).clamp(min=1e-6)
    ratios = log_ratios(means, DENSITY_FLOOR)[:, 1].clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    # A patch whose class lies in its own neighbourhood only says nothing of how the class looks elsewhere.
    usable = (inside > inside.max() / 2) & (means[:, 1] > 0)
    if not bool(usable.any()):
        return torch.tensor(_MAX_LOG_RATIO)
    count = max(1, round(fraction * float(coverage(support.features.frame).sum())))
    return ratios[usable].topk(min(count, int(usable.sum()))).values.mean()
