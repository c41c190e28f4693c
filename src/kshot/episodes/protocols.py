"""How each protocol draws the query and the classes of an episode; the supports follow one rule for all."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator

from kshot.data.base import Dataset

_K = TypeVar("_K")
_V = TypeVar("_V")


class QueryDraw(NamedTuple):
    """The query and the classes of one episode, and all images that must not be supports in it.

    `panet` draws a query for each class at once, so `excluded` may hold more than the query.
    """

    query: str
    classes: tuple[int, ...]
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """The rules of a published protocol."""

    about: str
    """The rules in words, with their source."""
    draw: "Callable[[Candidates, Generator, int, int], QueryDraw]"
    """Draws the query and the classes from (candidates, rng, index of the episode, way)."""
    default_count: int = 1000
    """Episodes of a run, unless the data set has a number of its own."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the published runs."""
    query_per_way: bool = False
    """Each set of supports serves `way` episodes, one query for each class."""
    any_area: bool = False
    """A query may show its class as small as it likes."""
    always_present: bool = False
    """Queries always show every class of a 1-way episode, so a class is never left out of the mask as absent."""
    own_supports: bool = False
    """Supports come from the data set's support split, not from the query split."""


@dataclass(frozen=True)
class Candidates:
    """The queries, classes and supports that may be drawn."""

    entries: tuple[tuple[str, int], ...]
    """(query, class id), in the order of the data set's list."""
    supports: Mapping[int, tuple[str, ...]]
    """{class id: images that show it}."""
    present: Mapping[str, frozenset[int]]
    """{query: all class ids that it shows, at any size}."""
    by_class: bool
    """Draw a class first and then a query of it, instead of going through the entries by turns."""

    @classmethod
    def of(cls, dataset: Dataset, rule: Protocol, support_split: str, fold: int | None) -> "Candidates":
        """Gather the (image, class) pairs of a fold. Reads the masks, unless their areas are cached."""
        queries = dataset.pairs(dataset.query_split, fold, 1 if rule.any_area else None)
        supports = dataset.pairs(support_split, fold)
        present = _grouped((pair.class_id, pair.image) for pair in dataset.areas(dataset.query_split))
        return cls(
            entries=tuple((pair.image, pair.class_id) for pair in queries),
            supports=_grouped((pair.image, pair.class_id) for pair in supports),
            present={image: frozenset(classes) for image, classes in present.items()},
            by_class=dataset.by_class,
        )

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Class ids that have a query, rising."""
        return tuple(sorted(self.queries_of))

    @cached_property
    def queries(self) -> tuple[str, ...]:
        """Every query once, in the order of the entries."""
        return tuple(dict.fromkeys(image for image, _ in self.entries))

    @cached_property
    def queries_of(self) -> Mapping[int, tuple[str, ...]]:
        """{class id: its queries}."""
        return _grouped(self.entries)

    def without(self, classes: Collection[int]) -> "Candidates":
        """The candidates without the queries of some classes."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry[1] not in classes))


def _grouped(pairs: Iterable[tuple[_V, _K]]) -> dict[_K, tuple[_V, ...]]:
    found: dict[_K, list[_V]] = {}
    for value, key in pairs:
        found.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in found.items()}


def _hsnet(candidates: Candidates, rng: Generator, index: int, way: int) -> QueryDraw:
    query, class_id = _entry(candidates, rng, index)
    return QueryDraw(query, _with_others(candidates, rng, class_id, way), (query,))


def _pfenet(candidates: Candidates, rng: Generator, index: int, way: int) -> QueryDraw:
    query = candidates.queries[index % len(candidates.queries)]
    shown = [c for c in candidates.classes if c in candidates.present[query]]
    class_id = shown[int(rng.integers(len(shown)))]
    return QueryDraw(query, _with_others(candidates, rng, class_id, way), (query,))


def _panet(candidates: Candidates, rng: Generator, index: int, way: int) -> QueryDraw:
    classes = _random_classes(candidates, rng, way)
    queries = tuple(_one_of(rng, candidates.queries_of[c]) for c in classes)
    return QueryDraw(queries[index % way], classes, queries)


def _fs_cs(candidates: Candidates, rng: Generator, index: int, way: int) -> QueryDraw:
    query, class_id = _entry(candidates, rng, index)
    classes = candidates.classes
    weights = np.full(len(classes), 0.5 / max(len(classes) - 1, 1))
    weights[classes.index(class_id)] = 0.5
    places = rng.choice(len(weights), way, replace=False, p=weights / weights.sum())
    return QueryDraw(query, tuple(classes[i] for i in places), (query,))


def _seed(candidates: Candidates, rng: Generator, index: int, way: int) -> QueryDraw:
    classes = _random_classes(candidates, rng, way)
    query = _one_of(rng, candidates.queries_of[classes[int(rng.integers(way))]])
    return QueryDraw(query, classes, (query,))


def _entry(candidates: Candidates, rng: Generator, index: int) -> tuple[str, int]:
    """A query and its class: by turns from the list, or, on large data sets, by class and then within it."""
    if not candidates.by_class:
        return candidates.entries[index % len(candidates.entries)]
    class_id = candidates.classes[int(rng.integers(len(candidates.classes)))]
    return _one_of(rng, candidates.queries_of[class_id]), class_id


def _with_others(candidates: Candidates, rng: Generator, class_id: int, way: int) -> tuple[int, ...]:
    """The class among way - 1 others, in random order, so that its place tells nothing."""
    others = [c for c in candidates.classes if c != class_id]
    extra = rng.choice(len(others), way - 1, replace=False).tolist() if way > 1 else []
    classes = [class_id, *(others[i] for i in extra)]
    return tuple(classes[i] for i in rng.permutation(way))


def _random_classes(candidates: Candidates, rng: Generator, way: int) -> tuple[int, ...]:
    return tuple(candidates.classes[i] for i in rng.choice(len(candidates.classes), way, replace=False))


def _one_of(rng: Generator, images: tuple[str, ...]) -> str:
    return images[int(rng.integers(len(images)))]


PROTOCOLS: dict[str, Protocol] = {
    "hsnet": Protocol(
        "1-way K-shot (Min et al. 2021): entry i mod len of the list of (image, class) pairs is the query and its "
        "class; on COCO the class is uniform and the query uniform in it. More ways add other classes.",
        _hsnet,
        always_present=True,
    ),
    "pfenet": Protocol(
        "1-way K-shot (Tian et al. 2020): image i mod len of the list, and a random class of those that it holds.",
        _pfenet,
        default_count=5000,
        always_present=True,
    ),
    "panet": Protocol(
        "N-way K-shot (Wang et al. 2019): N random classes, K supports and a query of each; episodes iN..iN+N-1 share "
        "the supports and differ in the query. Five runs, seeds 1234 to 1238.",
        _panet,
        seeds=(1234, 1235, 1236, 1237, 1238),
        query_per_way=True,
        always_present=True,
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
        always_present=True,
        own_supports=True,
    ),
}
