"""What supports say of each other: each class is sought where it was marked, with that place left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kshot.io.tensor_file import Learned
from kshot.methods._support_tokens import Cells, log_ratios, soft_ious
from kshot.methods.base import Origin, Support, Task
from kshot.ops.geometry import FeatureMap, coverage
from kshot.ops.similarity import vmf_means

TRIED = torch.tensor([-2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
_FLOOR = 1e-12
_NEAR = 2  # cells around one that look like it for no other reason
_LIMIT = 5.0  # log ratios count as this much at most
_STRANGE, _FEWEST = 0.25, 3  # a support is strange below this part of the others' IoU, if there are so many


class Reading(NamedTuple):
    """A method with settings and what it learned, if anything, and what its tasks are made for."""

    task: type[Task]
    settings: Any
    classes: tuple[str, ...]
    origin: Origin
    learned: Learned | None = None

    def fit(self, supports: Sequence[Support]) -> Task:
        """Its task of some supports."""
        return self.task(self.classes, tuple(supports), self.origin, self.settings, self.learned)


class Sought(NamedTuple):
    """A class looked for where it was left out.

    logits: (readings, cells) over the background. mask, known: (cells,) in 0..1, what a reading should have found, and
    where that can be told.
    """

    logits: Tensor
    mask: Tensor
    known: Tensor

    @property
    def ious(self) -> Tensor:
        """(readings, t): IoU at the thresholds that are tried, on the grid."""
        above = (self.logits[:, None] > TRIED[:, None]).float()  # (readings, t, cells)
        return soft_ious(above, self.mask, self.known)


@dataclass(frozen=True, eq=False)
class Held:
    """left: of each class the supports that were left out in turn; of a class with one support none.

    sought: of each class what was looked for: each support that was left out, or each half of the only one. middles:
    (N,) of a class with one support, halfway between class and background by its own cells; else 0. familiar: (N,) mean
    log ratio of a class's most familiar cells where it was left out.
    """

    left: tuple[tuple[int, ...], ...]
    sought: tuple[tuple[Sought, ...], ...]
    middles: Tensor
    familiar: Tensor

    @property
    def ious(self) -> tuple[Tensor | None, ...]:
        """Of each class (samples, readings, t), or None where nothing could be sought."""
        return tuple(torch.stack([one.ious for one in samples]) if samples else None for samples in self.sought)

    def remarks(self, classes: Sequence[str]) -> tuple[str, ...]:
        """A line for each support that the others do not recognise."""
        lines = []
        for name, left, ious in zip(classes, self.left, self.ious, strict=True):
            best = dict(zip(left, ious.amax((1, 2)).tolist() if left and ious is not None else (), strict=True))
            usual = sorted(best.values())[len(best) // 2] if len(best) >= _FEWEST else 0.0
            lines += [
                f"support {index + 1} ({name}): by the others only {iou:.2f} IoU of it is found, where {usual:.2f} "
                "is usual; look at its mask, or leave it out"
                for index, iou in sorted(best.items())
                if iou < _STRANGE * usual
            ]
        return tuple(lines)


def hold(supports: Sequence[Support], readings: Sequence[Reading], most: int, part: float, kappa: float) -> Held:
    """Leave out up to `most` supports of each class in turn; of a class with one support, each cell and those around.

    A support is sought with the help of the others of its class's `_pool`, so the work grows with the classes and not
    with their square. readings: the first a density, whose cells say how familiar. part: of the image, the cells that
    count as most familiar. kappa: of the kernel that says how familiar.
    """
    ways = supports[0].masks.shape[0]
    middles, familiar = torch.zeros(ways), torch.full((ways,), _LIMIT)
    left: list[tuple[int, ...]] = [()] * ways
    looked: list[tuple[Sought, ...]] = [()] * ways
    asked: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for way in range(ways):
        showing = showing_of(supports, way)
        if len(showing) == 1:
            middles[way], familiar[way] = _within(supports[showing[0]], way, kappa, part)
            looked[way] = _halves(supports[showing[0]], way, readings)
        elif showing:
            left[way], pool = tuple(showing[:most]), _pool(supports, showing, 2 * most)
            for index in left[way]:
                asked.setdefault((index, pool), []).append(way)
    seen: dict[tuple[int, int], tuple[Sought, Tensor]] = {}
    for (index, pool), sought in asked.items():
        found = _without(supports, index, pool, sought, readings, part, kappa)
        seen |= {(way, index): of_way for way, of_way in zip(sought, found, strict=True)}
    for way in (way for way in range(ways) if left[way]):
        looked[way] = tuple(seen[way, index][0] for index in left[way])
        familiar[way] = torch.stack([seen[way, index][1] for index in left[way]]).mean()
    return Held(tuple(left), tuple(looked), middles, familiar)


def familiarity(cells: Cells, features: FeatureMap, logits: Tensor, part: float, kappa: float) -> Tensor:
    """(N,): mean log ratio of each class to all else over its best cells, `part` of the image, by supports alone.

    Only cells near the top by `logits` (N+1, gh, gw) are compared, so it costs little.
    """
    return torch.stack([_familiar(cells, features, logits, way, part, kappa) for way in range(len(logits) - 1)])


def _familiar(cells: Cells, features: FeatureMap, logits: Tensor, way: int, part: float, kappa: float) -> Tensor:
    """() `familiarity` of one class."""
    tokens, labels, plane = features.tokens, cells.labels, logits[way + 1]
    count = max(1, round(part * float(coverage(features.frame).sum())))
    likely = plane.flatten().topk(min(4 * count, plane.numel())).indices
    sides = torch.stack([labels.sum(1) - labels[:, way + 1], labels[:, way + 1]], 1)
    ratios = log_ratios(vmf_means(tokens[likely], cells.tokens, sides, kappa), _FLOOR)[:, 1]
    return ratios.topk(min(count, len(ratios))).values.mean()


def showing_of(supports: Sequence[Support], way: int) -> list[int]:
    """Indices of the supports that show a class, in an order that is theirs and not the caller's."""
    areas = {index: float(support.masks[way].sum()) for index, support in enumerate(supports)}
    return sorted((index for index, area in areas.items() if area > 0), key=lambda index: areas[index], reverse=True)


def _pool(supports: Sequence[Support], showing: Sequence[int], most: int) -> tuple[int, ...]:
    """Indices, in the caller's order, of the supports that a class is sought with: at most so many.

    Those that show it most; if there is room, those that show nothing at all, whose background is every class's.
    """
    empty = [index for index, support in enumerate(supports) if not bool(support.masks.any())]
    empty.sort(key=lambda index: float(supports[index].features.features.sum()))  # an order of their own
    return tuple(sorted([*showing, *empty][:most]))


def _narrowed(
    supports: Sequence[Support], readings: Sequence[Reading]
) -> tuple[list[Support], list[Reading], list[int]]:
    """Supports and readings of those classes alone that the supports show, and which classes these are."""
    shown = [way for way in range(supports[0].masks.shape[0]) if any(bool(s.masks[way].any()) for s in supports)]
    fewer = [replace(support, masks=support.masks[shown]) for support in supports]
    return fewer, [r._replace(classes=tuple(r.classes[way] for way in shown)) for r in readings], shown


def _without(
    supports: Sequence[Support],
    index: int,
    pool: Sequence[int],
    sought: Sequence[int],
    readings: Sequence[Reading],
    part: float,
    kappa: float,
) -> list[tuple[Sought, Tensor]]:
    """Of each class that is sought what the others of a pool make of a support, and how familiar it is there.

    Classes that the pool does not show would only cost time.
    """
    support, (fewer, readings, shown) = supports[index], _narrowed([supports[i] for i in pool], readings)
    rest = [narrow for i, narrow in zip(pool, fewer, strict=True) if i != index]
    first = readings[0].fit(rest)
    logits = torch.stack(
        [first.score(support.features), *(reading.fit(rest).score(support.features) for reading in readings[1:])]
    )
    found = []
    for way in sought:
        row = shown.index(way)
        familiar = _familiar(first.fitted, support.features, logits[0], row, part, kappa)
        found.append((_sought(logits[:, row + 1], support, way), familiar))
    return found


def _sought(logits: Tensor, support: Support, way: int) -> Sought:
    """A class of a support, by logits (readings, gh, gw)."""
    return Sought(logits.flatten(1), support.masks[way].flatten(), support.known.flatten())


def _halves(support: Support, way: int, readings: Sequence[Reading]) -> tuple[Sought, ...]:
    """Each half of a class that is seen in one image alone, sought by the other half of that image."""
    fewer, readings, ways = _narrowed([support], readings)
    support, way = fewer[0], ways.index(way)
    mask = support.masks[way]
    upper = (mask.sum(1, keepdim=True).cumsum(0) <= mask.sum() / 2).expand_as(mask)
    left = (mask.sum(0, keepdim=True).cumsum(1) <= mask.sum() / 2).expand_as(mask)
    found = []
    for half in (upper, ~upper, left, ~left):
        shown, sought = (
            replace(support, masks=support.masks * side, known=support.known * side) for side in (half, ~half)
        )
        if min(float(shown.masks[way].sum()), float(sought.masks[way].sum())) > 0:
            logits = [reading.fit([shown]).score(support.features)[way + 1] for reading in readings]
            found.append(_sought(torch.stack(logits), sought, way))
    return tuple(found)


def _within(support: Support, way: int, kappa: float, part: float) -> tuple[Tensor, Tensor]:
    """Middle between class and background by a support's own cells, and the class's familiarity there."""
    (rows, columns), masks = support.features.grid_hw, support.masks.flatten(1)
    inside = masks[way]
    outside = support.background.flatten() + masks.sum(0) - inside
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    near = ((row[:, None] - row).abs() <= _NEAR) & ((column[:, None] - column).abs() <= _NEAR)
    tokens = support.features.tokens
    kernel = ((tokens @ tokens.T - 1) * kappa).exp().masked_fill(near, 0.0)
    sides = torch.stack([outside, inside], 1)
    means = kernel @ sides / sides.sum(0).clamp(min=1e-6)
    ratios = log_ratios(means, _FLOOR)[:, 1].clamp(-_LIMIT, _LIMIT)
    middle = (_mean(ratios, inside) + _mean(ratios, outside)) / 2
    # A class cell with no other class cell but its neighbours says nothing of how familiar the class looks.
    told = (inside > inside.max() / 2) & (means[:, 1] > 0)
    if not bool(told.any()):
        return middle, torch.tensor(_LIMIT)
    count = max(1, round(part * float(coverage(support.features.frame).sum())))
    return middle, ratios[told].topk(min(count, int(told.sum()))).values.mean()


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
