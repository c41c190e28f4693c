"""Episodes of every protocol, each pure in (seed, i): the same on any machine, in any order, with any workers.

Episode i has a generator of its own, `np.random.default_rng((seed, i))`, so nothing is shared and nothing is kept.
numpy may change a generator's stream between versions; the CSV of a run is what others repeat it from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from kshot.data.base import Dataset
from kshot.episodes.protocols import PROTOCOLS, Candidates, QueryDraw
from kshot.errors import DatasetError, SettingError, UnknownNameError


@dataclass(frozen=True)
class Episode:
    """One task: N classes (ways) with K supports each, and a query."""

    index: int
    """The episode's number in its run, from 0."""
    query: str
    """Image id of the query."""
    classes: tuple[int, ...]
    """The ways' class ids in the data set."""
    supports: tuple[tuple[str, ...], ...]
    """For each way its K image ids."""
    present: tuple[bool, ...]
    """For each way whether the query shows it."""


@dataclass(frozen=True)
class SamplerSettings:
    """All that the episodes of a run depend on, beside numpy."""

    dataset: str
    split: str
    """Where queries come from."""
    support_split: str
    """Where supports come from."""
    protocol: str
    way: int
    """N, classes of an episode."""
    shot: int
    """K, supports of each class."""
    count: int
    """Episodes of the run."""
    seed: int
    fold: int | None
    """Whose novel classes are drawn; None draws from all classes."""
    min_area: int
    """Pixels that a class needs in an image to be drawn."""
    allow_repeats: bool
    """Supports may repeat within K, as in HSNet's published code."""
    drop_small: bool
    """Classes with too few images for K shots are left out instead of refused."""
    digest: str
    """Of the class names and image ids (`Dataset.digest`): tells one copy of a data set from another."""


@dataclass(frozen=True, eq=False)
class Episodes:
    """The episodes of a run; `[i]` draws number i."""

    settings: SamplerSettings
    classes: tuple[str, ...] = field(repr=False)
    """The data set's class names."""
    draw: Callable[[int], Episode] = field(repr=False)
    """Gives episode i."""
    dropped: tuple[str, ...] = ()
    """Classes that were left out, and why."""

    def __len__(self) -> int:
        return self.settings.count

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(f"episode {index} of {len(self)}")
        return self.draw(int(index))

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))


def draw_episodes(
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

    Args are those of `SamplerSettings`. count: default is the protocol's. fold: default is the data set's.
    Raises `UnknownNameError`, `SettingError`, and `DatasetError` when the data set cannot give such episodes.
    """
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocols", protocol, PROTOCOLS)
    rule = PROTOCOLS[protocol]
    if count is None:
        count = dataset.episodes.get(protocol, rule.default_count) * (way if rule.query_per_way else 1)
    for name, value, least in (("way", way, 1), ("shot", shot, 1), ("count", count, 1), ("seed", seed, 0)):
        if value < least:
            raise SettingError(f"expected {name} of at least {least}, got {value}")
    support_split = dataset.support_split if rule.own_supports else dataset.query_split
    settings = SamplerSettings(
        dataset=dataset.name,
        split=dataset.query_split,
        support_split=support_split,
        protocol=protocol,
        way=way,
        shot=shot,
        count=count,
        seed=seed,
        fold=dataset.fold if fold is None else fold,
        min_area=dataset.min_area,
        allow_repeats=allow_repeats,
        drop_small=drop_small,
        digest=dataset.digest(dataset.query_split, support_split),
    )
    candidates = Candidates.of(dataset, rule, support_split, settings.fold)
    small = _too_small(dataset, candidates, settings)
    if small and not drop_small:
        told = "; ".join(small.values())
        raise DatasetError(
            f"{dataset.name}, {support_split}: {told}; leave small classes out (drop_small), or ask for fewer shots"
        )
    candidates = candidates.without(small)
    if way > len(candidates.classes):
        of_fold = "" if settings.fold is None else f" of fold {settings.fold}"
        raise DatasetError(
            f"{dataset.name}, {settings.split}: {way}-way, but {len(candidates.classes)} classes{of_fold} can be "
            "drawn; ask for fewer ways, another fold, or a data set opened without a fold"
        )
    return Episodes(settings, dataset.classes, partial(_draw, candidates, settings), tuple(small.values()))


def _too_small(dataset: Dataset, candidates: Candidates, settings: SamplerSettings) -> dict[int, str]:
    """{class id: how many images it lacks} of the classes that cannot give K supports beside the queries."""
    queries = settings.way if PROTOCOLS[settings.protocol].query_per_way else 1
    shared = not set(dataset.ids(settings.split)).isdisjoint(dataset.ids(settings.support_split))
    needed = (1 if settings.allow_repeats else settings.shot) + (queries if shared else 0)
    have = {c: len(candidates.supports.get(c, ())) for c in candidates.classes}
    return {
        c: f"{dataset.classes[c - 1]} has {n} of the {needed} images that {settings.shot}-shot needs"
        for c, n in have.items()
        if n < needed
    }


def _draw(candidates: Candidates, settings: SamplerSettings, index: int) -> Episode:
    """Episode `index`: first its query and classes, by the protocol's rule, then its supports."""
    rule = PROTOCOLS[settings.protocol]
    number = index // settings.way if rule.query_per_way else index
    rng = np.random.default_rng((settings.seed, number))
    drawn = rule.draw(candidates, rng, index, settings.way)
    supports = _supports(candidates, rng, drawn, settings)
    present = tuple(c in candidates.present[drawn.query] for c in drawn.classes)
    return Episode(index, drawn.query, drawn.classes, supports, present)


def _supports(
    candidates: Candidates, rng: np.random.Generator, drawn: QueryDraw, settings: SamplerSettings
) -> tuple[tuple[str, ...], ...]:
    """K images of each class, never a query; no image serves two ways as long as the class has others."""
    taken: set[str] = set()
    chosen: list[tuple[str, ...]] = []
    for class_id in drawn.classes:
        images = candidates.supports[class_id]
        if settings.allow_repeats:
            free = [image for image in images if image not in drawn.excluded]
            picked = tuple(free[i] for i in rng.integers(len(free), size=settings.shot))
        else:
            picked = _distinct(rng, images, settings.shot, set(drawn.excluded), taken)
        taken.update(picked)
        chosen.append(picked)
    return tuple(chosen)


def _distinct(
    rng: np.random.Generator, images: Sequence[str], shot: int, excluded: set[str], avoided: set[str]
) -> tuple[str, ...]:
    # A random order of enough images that K are left whatever is in the way: uniform, without a pass over the class.
    size = min(len(images), shot + len(excluded) + len(avoided))
    order = [images[i] for i in rng.choice(len(images), size=size, replace=False)]
    allowed = [image for image in order if image not in excluded]
    return tuple(sorted(allowed, key=avoided.__contains__)[:shot])
