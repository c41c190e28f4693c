"""Base and novel classes of a data set, and what training may see of it.

Three rules keep novel classes out of training. Episodes are drawn from base classes alone. No image that a validation
may draw is trained on, which matters where a data set has a single split. Pixels of novel classes in the remaining
images are ignored: as background they would teach that exactly these classes are none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kshot.data.base import Dataset, Labels, Sample
from kshot.episodes.sampler import Episode, Episodes, draw_episodes
from kshot.errors import DatasetError, SettingError
from kshot.training.unlabelled import seeded_rng
from kshot.types import IGNORE, MAX_CLASSES

_ORDER = 11  # a random stream of its own


@dataclass(frozen=True)
class Split:
    """Base and novel classes: sorted class ids."""

    base: tuple[int, ...]
    novel: tuple[int, ...]


def split_classes(
    data: Dataset, *, base: Sequence[str] = (), novel: Sequence[str] = (), every: int = 0, offset: int = 0
) -> Split:
    """Choose base and novel classes.

    The classes of a fold (`data.fold`) are novel, and exclude `novel` and `every`. Otherwise novel are the classes
    named in `novel`, or each `every`-th class from number `offset` on, counted from 0. Base are the classes named in
    `base`, or all that are not novel. Raises `SettingError`, which names a class that is both.
    """
    if data.fold is not None and (novel or every):
        raise SettingError(f"fold {data.fold} says which classes are novel; give neither novel names nor --novel-every")
    if bool(novel) and bool(every):
        raise SettingError("novel names (--novel) or every N-th class (--novel-every), not both")
    if data.fold is not None:
        held_out = data.fold_classes()
    elif novel:
        held_out = _ids(data, novel)
    else:
        held_out = _every(data, every, offset)
    chosen = _ids(data, base) if base else tuple(c for c in range(1, len(data.classes) + 1) if c not in held_out)
    both = [data.classes[c - 1] for c in chosen if c in held_out]
    if both:
        raise SettingError(
            f"{', '.join(both)}: base and novel at once; a class that is validated on must not be trained on: take it "
            "out of the base classes (--base), or out of the novel classes"
        )
    if not chosen or not held_out:
        raise SettingError(f"{data.name}: {len(chosen)} base and {len(held_out)} novel classes; both are needed")
    return Split(tuple(sorted(chosen)), tuple(sorted(held_out)))


def novel_view(data: Dataset, split: Split) -> Dataset:
    """The data set with its novel classes as its only fold: what validation sees."""
    return replace(data, folds=(split.novel,), fold=0, by_class=False)


def base_view(data: Dataset, split: Split, train: str, shot: int) -> tuple[Dataset, tuple[str, ...]]:
    """What training sees: images of the split `train`, base classes, novel pixels ignored. And classes left out of it.

    Classes with too few images for `shot` supports and a query are left out. Raises `DatasetError` if none remains.
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
        cache=None,  # the table of areas in it is that of the unchanged masks
    )
    counts = Counter(pair.class_id for pair in view.pairs())
    kept = tuple(c for c in split.base if counts[c] > shot)
    left_out = tuple(f"{data.classes[c - 1]} ({counts[c]})" for c in split.base if c not in kept)
    if not kept:
        raise DatasetError(
            f"{data.name}, {train}: no base class has the {shot + 1} images that {shot}-shot needs once the "
            f"{len(data.ids(train)) - len(images)} images that are validated on are left out; ask for fewer shots or "
            "fewer novel classes"
        )
    narrowed = replace(view, folds=(kept,))
    narrowed._areas.update(view._areas)
    return narrowed, left_out


@dataclass(frozen=True)
class EpochSampler:
    """Training episodes by number: in each epoch every (image, class) pair is the query once, in random order."""

    drawn: Episodes
    pairs: int
    seed: int

    @classmethod
    def of(cls, view: Dataset, protocol: str, way: int, shot: int, seed: int) -> "EpochSampler":
        """Sample from what training sees.

        protocol: `hsnet`, whose queries always show their class, or `fs-cs`, whose queries lack each class half of the
        time. Raises `DatasetError` and `SettingError`.
        """
        return cls(draw_episodes(view, protocol, way, shot, 2**31, seed), len(view.pairs()), seed)

    def __getitem__(self, number: int) -> Episode:
        epoch, place = divmod(number, self.pairs)
        entry = int(seeded_rng(self.seed, _ORDER, epoch).permutation(self.pairs)[place])
        return self.drawn[epoch * self.pairs + entry]


def _ids(data: Dataset, names: Sequence[str]) -> tuple[int, ...]:
    known = {name: number for number, name in enumerate(data.classes, 1)}
    missing = [name for name in names if name not in known]
    if missing:
        raise SettingError(f"{data.name} has no class {', '.join(missing)}; it has {', '.join(data.classes)}")
    return tuple(known[name] for name in dict.fromkeys(names))


def _every(data: Dataset, every: int, offset: int) -> tuple[int, ...]:
    if every < 2 or not 0 <= offset < every:
        fold = f"a fold (--fold 0..{len(data.folds) - 1}), " if data.folds else ""
        raise SettingError(
            f"{data.name}: which classes are novel? Give {fold}their names (--novel), or take every N-th "
            "(--novel-every N, 2 or more, with --novel-offset below N)"
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
    """The split as JSON holds it."""
    return {
        "data": data.name,
        "digest": data.digest(*data.splits),
        "split": view.query_split,
        "images": len(view.ids()),
        "base": [data.classes[c - 1] for c in view.fold_classes()],
        "novel": [data.classes[c - 1] for c in split.novel],
    }
