"""Episodes of every protocol, each pure in (seed, i): the same on any machine, in any order, with any workers.

Episode i has a generator of its own, `np.random.default_rng((seed, i))`, so nothing is shared and nothing is kept.
numpy may change a generator's stream between versions; the CSV of a run is what others repeat it from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from kshot.data.base import Dataset
from kshot.episodes import csv
from kshot.episodes.csv import Episode, Plan
from kshot.episodes.protocols import PROTOCOLS, Draw, Pool, Protocol
from kshot.errors import DatasetError, SettingError, UnknownNameError

__all__ = ["PROTOCOLS", "Episode", "Episodes", "Plan", "Protocol", "episodes", "read_episodes"]


@dataclass(frozen=True, eq=False)
class Episodes:
    """A run's episodes; `[i]` draws number i. classes: the data set's names. dropped: classes left out, and why."""

    plan: Plan
    classes: tuple[str, ...] = field(repr=False)
    draw: Callable[[int], Episode] = field(repr=False)
    dropped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.plan.count

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(f"episode {index} of {len(self)}")
        return self.draw(int(index))

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))

    def write(self, path: Path) -> None:
        """Write them as a CSV: the plan in comment lines, then a row an episode. Raises `OutputError`."""
        csv.write(path, self.plan, self, self.classes)


def episodes(
    dataset: Dataset,
    protocol: str = "hsnet",
    way: int = 1,
    shot: int = 1,
    count: int | None = None,
    seed: int = 0,
    fold: int | None = None,
    *,
    allow_repeats: bool = False,
    drop_small: bool = False,
) -> Episodes:
    """The episodes of a protocol (`PROTOCOLS` says what each does) on a data set.

    way, shot: N and K. count: episodes (default: the protocol's). fold: default is the data set's. allow_repeats:
    supports may repeat within K, as in HSNet's published code. drop_small: leave out classes with too few images
    for K shots, and say so in `.dropped`, instead of raising.
    Raises `UnknownNameError`, `SettingError`, and `DatasetError` when the data set cannot give such episodes.
    """
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocols", protocol, PROTOCOLS)
    rule, number = PROTOCOLS[protocol], dataset.fold if fold is None else fold
    support_split = dataset.support_split if rule.own_supports else dataset.query_split
    total = _default_count(dataset, protocol, way) if count is None else count
    _check(way, shot, total, seed)
    plan = Plan(
        dataset=dataset.name,
        split=dataset.query_split,
        support_split=support_split,
        protocol=protocol,
        way=way,
        shot=shot,
        count=total,
        seed=seed,
        fold=number,
        min_area=dataset.min_area,
        allow_repeats=allow_repeats,
        drop_small=drop_small,
        digest=dataset.digest(dataset.query_split, support_split),
    )
    pool = Pool.of(dataset, rule.any_area, support_split, number)
    pool, dropped = _without_small(pool, plan, drop_small)
    if way > len(pool.classes):
        of = "" if number is None else f" of fold {number}"
        raise DatasetError(
            f"{dataset.name}, {plan.split}: {way}-way, but {len(pool.classes)} classes{of} can be drawn; "
            "ask for fewer ways, another fold, or none (--fold none)"
        )
    return Episodes(plan, dataset.classes, partial(_draw, pool, plan), dropped)


def read_episodes(path: Path, dataset: Dataset) -> Episodes:
    """Read a CSV that `Episodes.write` wrote. Raises `DatasetError`, also when it is of another data set."""
    plan, rows = csv.read(path, dataset)
    return Episodes(plan, dataset.classes, rows.__getitem__)


def _draw(pool: Pool, plan: Plan, index: int) -> Episode:
    rule = PROTOCOLS[plan.protocol]
    number = index // plan.way if rule.query_per_way else index
    rng = np.random.default_rng((plan.seed, number))
    drawn = rule.draw(pool, rng, index, plan.way)
    supports = _supports(pool, rng, drawn, plan)
    present = tuple(c in pool.present[drawn.query] for c in drawn.classes)
    return Episode(index, drawn.query, drawn.classes, supports, present)


def _supports(pool: Pool, rng: np.random.Generator, drawn: Draw, plan: Plan) -> tuple[tuple[str, ...], ...]:
    """K of each class, never a query; no image serves two ways as long as the class has others."""
    taken: set[str] = set()
    chosen: list[tuple[str, ...]] = []
    for class_id in drawn.classes:
        images = pool.supports[class_id]
        if plan.allow_repeats:
            free = [image for image in images if image not in drawn.queries]
            picked = tuple(free[i] for i in rng.integers(len(free), size=plan.shot))
        else:
            picked = _distinct(rng, images, plan.shot, set(drawn.queries), taken)
        taken.update(picked)
        chosen.append(picked)
    return tuple(chosen)


def _distinct(
    rng: np.random.Generator, images: Sequence[str], shot: int, never: set[str], rather_not: set[str]
) -> tuple[str, ...]:
    # A random order of enough images that K are left whatever is in the way: uniform, without a pass over the class.
    size = min(len(images), shot + len(never) + len(rather_not))
    order = [images[i] for i in rng.choice(len(images), size=size, replace=False)]
    allowed = [image for image in order if image not in never]
    ranked = sorted(allowed, key=rather_not.__contains__)
    return tuple(ranked[:shot])


def _without_small(pool: Pool, plan: Plan, drop: bool) -> tuple[Pool, tuple[str, ...]]:
    """The pool without the classes that cannot give K supports beside the queries."""
    queries = plan.way if PROTOCOLS[plan.protocol].query_per_way else 1
    needed = (1 if plan.allow_repeats else plan.shot) + (queries if pool.shared else 0)
    small = {c: len(pool.supports.get(c, ())) for c in pool.classes if len(pool.supports.get(c, ())) < needed}
    told = tuple(
        f"{pool.names[c - 1]} has {have} of the {needed} images that {plan.shot}-shot needs"
        for c, have in small.items()
    )
    if told and not drop:
        where = f"{plan.dataset}, {plan.support_split}"
        raise DatasetError(f"{where}: {'; '.join(told)}; leave small classes out (drop_small), or ask for fewer shots")
    return pool.without(small), told


def _default_count(dataset: Dataset, protocol: str, way: int) -> int:
    rule = PROTOCOLS[protocol]
    return dataset.episodes.get(protocol, rule.default) * (way if rule.query_per_way else 1)


def _check(way: int, shot: int, count: int, seed: int) -> None:
    for name, value, least in (("way", way, 1), ("shot", shot, 1), ("count", count, 1), ("seed", seed, 0)):
        if value < least:
            raise SettingError(f"expected {name} of at least {least}, got {value}")
