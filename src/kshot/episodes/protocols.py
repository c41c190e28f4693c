"""How each protocol draws the query and the classes of an episode; the supports follow one rule for all."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from kshot.data.base import Dataset

Rng = np.random.Generator
_K = TypeVar("_K")
_V = TypeVar("_V")


class Draw(NamedTuple):
    """queries: all images that must not be supports, as one protocol draws a query for each class."""

    query: str
    classes: tuple[int, ...]
    queries: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """A protocol's rules; `about` says them in words.

    default: episodes, unless the data set has a number of its own. seeds: of the published runs. query_per_way: each
    set of supports serves N queries, one a way. any_area: a query may show its class as small as it likes.
    own_supports: supports come from the data set's support split, not from the query split.
    """

    about: str
    draw: "Callable[[Pool, Rng, int, int], Draw]"
    default: int = 1000
    seeds: tuple[int, ...] = (0,)
    query_per_way: bool = False
    any_area: bool = False
    own_supports: bool = False


@dataclass(frozen=True)
class Pool:
    """What may be drawn.

    classes: those with a query, rising. entries: (query, class) in the order of the list; queries: its images.
    by_class: {class: queries}. supports: {class: images}. present: {query: its classes}. uniform: queries are drawn
    by class. shared: queries and supports come from lists that overlap.
    """

    names: tuple[str, ...]
    classes: tuple[int, ...]
    entries: tuple[tuple[str, int], ...]
    queries: tuple[str, ...]
    by_class: Mapping[int, tuple[str, ...]]
    supports: Mapping[int, tuple[str, ...]]
    present: Mapping[str, frozenset[int]]
    uniform: bool
    shared: bool

    @classmethod
    def of(cls, dataset: Dataset, any_area: bool, support_split: str, fold: int | None) -> "Pool":
        """Gather the pairs of a fold; reads the masks unless their areas are known."""
        split = dataset.query_split
        entries = tuple((p.image, p.class_id) for p in dataset.pairs(split, fold, 1 if any_area else None))
        supports = ((p.image, p.class_id) for p in dataset.pairs(support_split, fold))
        present = _grouped((p.class_id, p.image) for p in dataset.areas(split))
        return cls(
            names=dataset.classes,
            classes=tuple(sorted({class_id for _, class_id in entries})),
            entries=entries,
            queries=tuple(dict.fromkeys(image for image, _ in entries)),
            by_class=_grouped(entries),
            supports=_grouped(supports),
            present={image: frozenset(classes) for image, classes in present.items()},
            uniform=dataset.by_class,
            shared=not set(dataset.ids(split)).isdisjoint(dataset.ids(support_split)),
        )

    def without(self, classes: Collection[int]) -> "Pool":
        """The pool without some classes."""
        kept = tuple(c for c in self.classes if c not in classes)
        entries = tuple(entry for entry in self.entries if entry[1] in set(kept))
        return replace(self, classes=kept, entries=entries, queries=tuple(dict.fromkeys(i for i, _ in entries)))


def _grouped(pairs: Iterable[tuple[_V, _K]]) -> dict[_K, tuple[_V, ...]]:
    found: dict[_K, list[_V]] = {}
    for value, key in pairs:
        found.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in found.items()}


def _hsnet(pool: Pool, rng: Rng, index: int, way: int) -> Draw:
    query, class_id = _entry(pool, rng, index)
    return Draw(query, _with_others(pool, rng, class_id, way), (query,))


def _pfenet(pool: Pool, rng: Rng, index: int, way: int) -> Draw:
    query = pool.queries[index % len(pool.queries)]
    there = [c for c in pool.classes if c in pool.present[query]]
    class_id = there[int(rng.integers(len(there)))]
    return Draw(query, _with_others(pool, rng, class_id, way), (query,))


def _panet(pool: Pool, rng: Rng, index: int, way: int) -> Draw:
    classes = _some(pool, rng, way)
    queries = tuple(_one_of(rng, pool.by_class[c]) for c in classes)
    return Draw(queries[index % way], classes, queries)


def _fs_cs(pool: Pool, rng: Rng, index: int, way: int) -> Draw:
    query, class_id = _entry(pool, rng, index)
    chances = np.full(len(pool.classes), 0.5 / max(len(pool.classes) - 1, 1))
    chances[pool.classes.index(class_id)] = 0.5
    places = rng.choice(len(chances), way, replace=False, p=chances / chances.sum())
    return Draw(query, tuple(pool.classes[i] for i in places), (query,))


def _seed(pool: Pool, rng: Rng, index: int, way: int) -> Draw:
    classes = _some(pool, rng, way)
    query = _one_of(rng, pool.by_class[classes[int(rng.integers(way))]])
    return Draw(query, classes, (query,))


def _entry(pool: Pool, rng: Rng, index: int) -> tuple[str, int]:
    """A query and its class: by turns from the list, or, on large data sets, by class and then within it."""
    if not pool.uniform:
        return pool.entries[index % len(pool.entries)]
    class_id = pool.classes[int(rng.integers(len(pool.classes)))]
    return _one_of(rng, pool.by_class[class_id]), class_id


def _with_others(pool: Pool, rng: Rng, class_id: int, way: int) -> tuple[int, ...]:
    """The class among way - 1 others, in random order, so that its place tells nothing."""
    others = [c for c in pool.classes if c != class_id]
    extra = rng.choice(len(others), way - 1, replace=False).tolist() if way > 1 else []
    classes = [class_id, *(others[i] for i in extra)]
    return tuple(classes[i] for i in rng.permutation(way))


def _some(pool: Pool, rng: Rng, way: int) -> tuple[int, ...]:
    return tuple(pool.classes[i] for i in rng.choice(len(pool.classes), way, replace=False))


def _one_of(rng: Rng, images: tuple[str, ...]) -> str:
    return images[int(rng.integers(len(images)))]


PROTOCOLS: dict[str, Protocol] = {
    "hsnet": Protocol(
        "1-way K-shot (Min et al. 2021): entry i mod len of the list of (image, class) pairs is the query and its "
        "class; on COCO the class is uniform and the query uniform in it. More ways add other classes.",
        _hsnet,
    ),
    "pfenet": Protocol(
        "1-way K-shot (Tian et al. 2020): image i mod len of the list, and a random class of those that it holds.",
        _pfenet,
        default=5000,
    ),
    "panet": Protocol(
        "N-way K-shot (Wang et al. 2019): N random classes, K supports and a query of each; episodes iN..iN+N-1 share "
        "the supports and differ in the query. Five runs, seeds 1234 to 1238.",
        _panet,
        seeds=(1234, 1235, 1236, 1237, 1238),
        query_per_way=True,
    ),
    "fs-cs": Protocol(
        "N-way K-shot with absent classes (iFSL, Kang and Cho 2022): the query as in hsnet; each of its draws of "
        "classes has the query's class with half of the weight, so the query may hold all, some or none.",
        _fs_cs,
    ),
    "seed": Protocol(
        "N-way K-shot over all classes: N random classes, a query from the validation list that holds a random one of "
        "them at any size, supports from the training list.",
        _seed,
        any_area=True,
        own_supports=True,
    ),
}
