"""Base and novel classes of a data set, and what training may see of it.

Three rules keep novel classes out. Episodes are drawn from base classes alone. An image that a validation may draw is
not trained on, which matters where a data set has one split for all. And pixels of novel classes in the images that are
left count as ignored: taken for background, they would teach that just those classes are none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kshot.data.base import Dataset, Labels, Sample
from kshot.episodes.sampler import Episode, Episodes, draw_episodes
from kshot.errors import DatasetError, SettingError
from kshot.training.unlabelled import rng
from kshot.types import IGNORE, MAX_CLASSES

_ORDER = 11  # what chance is asked for


@dataclass(frozen=True)
class Split:
    """base, novel: class ids, rising."""

    base: tuple[int, ...]
    novel: tuple[int, ...]


def split_classes(
    data: Dataset, *, base: Sequence[str] = (), novel: Sequence[str] = (), every: int = 0, offset: int = 0
) -> Split:
    """Which classes are base and which novel.

    With a fold (`data.fold`) its classes are novel, and neither names nor `every` go with it. Else novel are those
    named, or each `every`-th class from number `offset` on, counted from 0. base: those named, or all that are left.
    Raises `SettingError`, which names a class that is both.
    """
    if data.fold is not None and (novel or every):
        raise SettingError(f"fold {data.fold} says which classes are novel; leave --novel and --novel-every out")
    if bool(novel) and bool(every):
        raise SettingError("--novel or --novel-every, not both")
    if data.fold is not None:
        rare = data.fold_classes()
    elif novel:
        rare = _ids(data, novel)
    else:
        rare = _every(data, every, offset)
    left = tuple(c for c in range(1, len(data.classes) + 1) if c not in rare)
    chosen = _ids(data, base) if base else left
    both = [data.classes[c - 1] for c in chosen if c in rare]
    if both:
        raise SettingError(
            f"{', '.join(both)}: base and novel at once; a class that is validated on must not be trained on: take it "
            "out of --base, or out of the novel classes"
        )
    if not chosen or not rare:
        raise SettingError(f"{data.name}: {len(chosen)} base and {len(rare)} novel classes; both are needed")
    return Split(tuple(sorted(chosen)), tuple(sorted(rare)))


def novel_view(data: Dataset, split: Split) -> Dataset:
    """The same data set, its novel classes as its only fold: what is validated on."""
    return replace(data, folds=(split.novel,), fold=0, by_class=False)


def base_view(data: Dataset, split: Split, train: str, shot: int) -> tuple[Dataset, tuple[str, ...]]:
    """What training may see: images of the split `train`, base classes, novel pixels ignored; and what was left out.

    Classes with too few images for `shot` supports and a query are left out of the base. Raises `DatasetError`.
    """
    if len(data.classes) > MAX_CLASSES:
        raise DatasetError(f"{data.name}: {len(data.classes)} classes leave no label for ignored pixels")
    validated = {pair.image for pair in novel_view(data, split).pairs()}
    images = tuple(image for image in data.ids(train) if image not in validated)
    samples = {image: _ignoring(data.samples[image], split.novel) for image in images}
    view = replace(
        data,
        samples=samples,
        splits={train: images},
        query_split=train,
        support_split=train,
        folds=(split.base,),
        fold=0,
        by_class=False,
        cache=None,  # its table of areas is that of other masks
    )
    counts = Counter(pair.class_id for pair in view.pairs())
    kept = tuple(c for c in split.base if counts[c] > shot)
    told = tuple(f"{data.classes[c - 1]} ({counts[c]})" for c in split.base if c not in kept)
    if not kept:
        raise DatasetError(
            f"{data.name}, {train}: no base class has the {shot + 1} images that {shot}-shot needs once the "
            f"{len(data.ids(train)) - len(images)} images that are validated on are left out; ask for fewer shots or "
            "fewer novel classes"
        )
    narrowed = replace(view, folds=(kept,))
    narrowed._areas.update(view._areas)
    return narrowed, told


@dataclass(frozen=True)
class Sampler:
    """Episodes of base classes, number by number: every (image, class) pair is the query once an epoch.

    protocol: `hsnet`, whose query always shows its class, or `fs-cs`, whose query lacks each class half of the time.
    """

    drawn: Episodes
    pairs: int
    seed: int

    @classmethod
    def of(cls, view: Dataset, protocol: str, way: int, shot: int, seed: int) -> "Sampler":
        """Raises `DatasetError` and `SettingError`."""
        return cls(draw_episodes(view, protocol, way, shot, 2**31, seed), len(view.pairs()), seed)

    def __getitem__(self, number: int) -> Episode:
        epoch, place = divmod(number, self.pairs)
        entry = int(rng(self.seed, _ORDER, epoch).permutation(self.pairs)[place])
        return self.drawn[epoch * self.pairs + entry]


def _ids(data: Dataset, names: Sequence[str]) -> tuple[int, ...]:
    known = {name: number for number, name in enumerate(data.classes, 1)}
    missing = [name for name in names if name not in known]
    if missing:
        raise SettingError(f"{data.name} has no class {', '.join(missing)}; it has {', '.join(data.classes)}")
    return tuple(known[name] for name in dict.fromkeys(names))


def _every(data: Dataset, every: int, offset: int) -> tuple[int, ...]:
    if every < 2 or not 0 <= offset < every:
        has = f"--fold 0..{len(data.folds) - 1}, " if data.folds else ""
        raise SettingError(
            f"{data.name}: which classes are novel? Give {has}--novel NAMES, or --novel-every N (2 or more) with "
            "--novel-offset below N"
        )
    return tuple(c for c in range(1, len(data.classes) + 1) if (c - 1) % every == offset)


def _ignoring(sample: Sample, novel: Sequence[int]) -> Sample:
    return sample._replace(mask=partial(_masked, sample, tuple(novel)))


def _masked(sample: Sample, novel: tuple[int, ...]) -> Labels:
    labels = sample.mask()
    table = np.arange(np.iinfo(labels.dtype).max + 1, dtype=labels.dtype)
    table[list(novel)] = IGNORE
    masked: Labels = table[labels]
    return masked


def facts_of(data: Dataset, split: Split, view: Dataset) -> Mapping[str, object]:
    """What is written down of the split."""
    return {
        "data": data.name,
        "digest": data.digest(*data.splits),
        "split": view.query_split,
        "images": len(view.ids()),
        "base": [data.classes[c - 1] for c in view.fold_classes()],
        "novel": [data.classes[c - 1] for c in split.novel],
    }
