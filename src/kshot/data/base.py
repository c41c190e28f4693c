"""What a data set is, whichever way it lies on the disk; and how to find and open one.

A family is one file beside this one. It defines `LOOKS_FOR` (a line), `locate(root)` (the folder where its layout
starts, or None; cheap, it reads no image) and `load(root, fold=None, strict=False, cache=None, ...)`, which returns a
`Dataset`.

Class ids are the labels in the masks: 1..C, so class id c is `classes[c - 1]`; 0 is background and 255 is ignored.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot import _plugins
from kshot.data._areas import ImageClassPair, read_areas, write_areas
from kshot.data._file_hashes import FileHash as FileHash
from kshot.data._file_hashes import hash_files
from kshot.data._report import ClassCount, DatasetReport, Problem
from kshot.errors import DatasetError, SettingError, UnknownNameError
from kshot.io.paths import visible
from kshot.types import IGNORE, MAX_CLASSES

Labels = NDArray[np.unsignedinteger[Any]]
LabelType = type[np.uint8] | type[np.uint16]
_FAMILY = "data"


class Sample(NamedTuple):
    """An image with its label map."""

    image: Path
    mask: Callable[[], Labels]
    """Reads the label map."""
    source: Path
    """The file that the label map comes from."""
    objects: Callable[[], NDArray[np.integer[Any]]] | None = None
    """Reads numbers (h, w) that tell the objects of one class apart, 0 outside; None where the truth does not."""


def _no_shortfalls(dataset: "Dataset") -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with label maps, read where they lie."""

    name: str
    family: str
    """The name of its file."""
    root: Path
    layout: str
    """How it lies on the disk, in words."""
    classes: tuple[str, ...]
    samples: Mapping[str, Sample] = field(repr=False)
    """By the id of the image."""
    splits: Mapping[str, tuple[str, ...]] = field(repr=False)
    """Image ids by the name of the split, in the order of its list."""
    query_split: str
    """Where episodes come from."""
    support_split: str
    """Where protocol `seed` takes its supports."""
    folds: tuple[tuple[int, ...], ...] = ()
    """The novel class ids of each fold."""
    fold: int | None = None
    """The fold whose novel classes are tested; None: all classes are."""
    min_area: int = 1
    """Pixels that a class needs in an image to make a pair."""
    by_class: bool = False
    """Queries are drawn by class, not by list entry."""
    episodes: Mapping[str, int] = field(default_factory=dict)
    """How many episodes a protocol draws by default, where the data set says so."""
    problems: tuple[Problem, ...] = field(default=(), repr=False)
    """What is missing."""
    shortfalls: Callable[["Dataset"], tuple[str, ...]] = field(default=_no_shortfalls, repr=False)
    """Says what to know of a score on this copy, such as why it is none on the published benchmark."""
    cache: Path | None = None
    """A folder for the areas of the masks, never inside the data set."""
    _areas: dict[str, tuple[ImageClassPair, ...]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.fold_classes()
        for split in (self.query_split, self.support_split):
            self.ids(split)

    def ids(self, split: str | None = None) -> tuple[str, ...]:
        """Image ids of a split (default: the query split). Raises `DatasetError`."""
        wanted = split or self.query_split
        if wanted not in self.splits:
            raise DatasetError(f"{self.name}: no split {wanted!r}; it has {', '.join(self.splits) or 'none'}")
        return self.splits[wanted]

    def image_path(self, image: str) -> Path:
        """The image's file. Raises `DatasetError` for an unknown id."""
        return self._sample(image).image

    def truth(self, image: str) -> Labels:
        """(h, w) label map: 0 background, 1..C classes, 255 ignored; uint8.

        With more than 254 classes (FSS-1000 as a whole) it is uint16 and nothing is ignored.
        Raises `DatasetError` that names the file and the labels when a label is no class.
        """
        sample = self._sample(image)
        labels = sample.mask()
        wrong = labels > len(self.classes)
        if labels.dtype == np.uint8:
            wrong &= labels != IGNORE
        if wrong.any():
            raise DatasetError(
                f"{sample.source}: {image} holds labels outside the class list: {np.unique(labels[wrong]).tolist()}; "
                f"expected 0..{len(self.classes)} or {IGNORE} (ignore)"
            )
        return labels

    def objects(self, image: str) -> NDArray[np.integer[Any]]:
        """(h, w) numbers that tell the true objects apart: those of one class and one number are one object.

        Raises `DatasetError` where the truth holds no separate objects.
        """
        return self._objects_of(image)()

    def check_objects(self, images: Iterable[str]) -> None:
        """Raise `DatasetError` where the truth of an image holds no separate objects, as far as names and files say."""
        for image in dict.fromkeys(images):
            self._objects_of(image)

    def _objects_of(self, image: str) -> Callable[[], NDArray[np.integer[Any]]]:
        sample = self._sample(image)
        if sample.objects is None:
            raise DatasetError(
                f"{sample.source}: tells no objects apart, but instances (--instances) are compared one by one; give "
                "COCO annotations, SegmentationObject/ beside VOC's SegmentationClass/, or folders of one class whose "
                "masks number their objects (x_labels.png)"
            )
        return sample.objects

    def way_mask(self, image: str, classes: Sequence[int]) -> NDArray[np.uint8]:
        """(h, w) uint8 label map of an episode: n where class classes[n-1] is, 0 elsewhere, 255 ignored."""
        labels = self.truth(image)
        table = np.zeros(np.iinfo(labels.dtype).max + 1, np.uint8)
        if labels.dtype == np.uint8:
            table[IGNORE] = IGNORE
        table[np.asarray(classes, np.int64)] = np.arange(1, len(classes) + 1)
        mapped: NDArray[np.uint8] = table[labels]
        return mapped

    def areas(self, split: str | None = None) -> tuple[ImageClassPair, ...]:
        """Every class of every image of a split, by image, in the order of the list, then class id.

        One pass over the masks, then kept; in the cache folder too, where there is one.
        """
        name = split or self.query_split
        if name not in self._areas:
            path = self.cache and self.cache / f"areas-{self.family}-{name}-{self._mask_digest(name)}.csv"
            found = read_areas(path) if path else None
            if found is None:
                found = self._count_areas(name)
                if path:
                    write_areas(path, found)
            self._areas[name] = found
        return self._areas[name]

    def _count_areas(self, split: str) -> tuple[ImageClassPair, ...]:
        pairs = []
        for image in self.ids(split):
            counts = np.bincount(self.truth(image).ravel())[: len(self.classes) + 1]
            pairs += [ImageClassPair(image, int(c), int(counts[c])) for c in np.flatnonzero(counts) if c]
        return tuple(pairs)

    def _mask_digest(self, split: str) -> str:
        """Changes with the list and with the size or time of any file that a mask comes from."""
        times: dict[Path, str] = {}
        for source in (self.samples[image].source for image in self.ids(split)):
            if source not in times:
                status = source.stat() if source.exists() else None
                times[source] = f"{status.st_size} {status.st_mtime_ns}" if status else "absent"
        lines = (f"{image} {times[self.samples[image].source]}" for image in self.ids(split))
        return _digest([self.layout, *self.classes, *lines])

    def pairs(
        self, split: str | None = None, fold: int | None = None, min_area: int | None = None
    ) -> tuple[ImageClassPair, ...]:
        """The (image, class) pairs of a fold's novel classes with enough pixels, by image, then class id."""
        wanted, least = set(self.fold_classes(fold)), self.min_area if min_area is None else min_area
        return tuple(pair for pair in self.areas(split) if pair.class_id in wanted and pair.area >= least)

    def fold_classes(self, fold: int | None = None) -> tuple[int, ...]:
        """Novel class ids of a fold (default: the data set's own; without folds all). Raises `SettingError`."""
        number = self.fold if fold is None else fold
        if number is None:
            return tuple(range(1, len(self.classes) + 1))
        if not 0 <= number < len(self.folds):
            has = f"folds 0..{len(self.folds) - 1}" if self.folds else "no folds"
            raise SettingError(f"{self.name} has {has}, got fold {number}")
        return self.folds[number]

    def base_classes(self, fold: int | None = None) -> tuple[int, ...]:
        """The class ids that are not novel in a fold: what training may see."""
        novel = set(self.fold_classes(fold))
        return tuple(c for c in range(1, len(self.classes) + 1) if c not in novel)

    def digest(self, *splits: str) -> str:
        """Hash of the class names and the image ids of some splits: the same copy gives the same 16 letters."""
        ids = sorted({image for split in splits or (self.query_split,) for image in self.ids(split)})
        return _digest([*self.classes, "", *ids])

    def file_hashes(self, splits: Iterable[str], images: Iterable[str]) -> tuple[FileHash, ...]:
        """The files that a run rests on, sorted by path, with sizes and hashes.

        Of the splits all masks are hashed, because episodes are drawn from them, and of the images those in `images`,
        which are read; the other images have their size alone. A file is hashed once, where there is a cache folder.
        Raises `DatasetError` for one that cannot be read.
        """
        samples = [self.samples[image] for split in set(splits) for image in self.ids(split)]
        masks, read = {sample.source for sample in samples}, {self.image_path(image) for image in images}
        kept = self.cache and self.cache / f"files-{self.family}-{_digest([str(self.root.resolve())])}.csv"
        return hash_files(self.root, masks | read, {sample.image for sample in samples}, kept)

    def report(self, split: str | None = None) -> DatasetReport:
        """What is present and what is missing; reads the masks of the split once."""
        name = split or self.query_split
        images = Counter(pair.class_id for pair in self.areas(name))
        enough = Counter(pair.class_id for pair in self.areas(name) if pair.area >= self.min_area)
        counts = (ClassCount(c, n, images[c], enough[c]) for c, n in enumerate(self.classes, start=1))
        sizes = {split: len(ids) for split, ids in self.splits.items()}
        problems, short = self.problems, self.shortfalls(self)
        return DatasetReport(
            self.name, self.family, self.root, self.layout, name, sizes, tuple(counts), problems, short
        )

    def _sample(self, image: str) -> Sample:
        if image not in self.samples:
            raise DatasetError(f"{self.name}: no image {image!r} among its {len(self.samples)}")
        return self.samples[image]


def _digest(lines: Iterable[str]) -> str:
    """The first 16 letters of the SHA-256 of some lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class FoundDataset(NamedTuple):
    """A data set that was recognised: its family and where."""

    family: str
    root: Path


def load_dataset(
    name: str,
    root: str | Path,
    *,
    fold: int | None = None,
    strict: bool = False,
    cache: str | Path | None = None,
    **settings: Any,
) -> Dataset:
    """Open a data set. name: a family (`voc`, `coco`, `fss1000`, `folder`), or `auto` for whichever it is.

    fold: novel classes to test. strict: stop at missing files instead of listing them. cache: a folder for the table
    of areas. settings: the family's own. Raises `UnknownNameError`, `SettingError` and `DatasetError`.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; check the path")
    family = _detected(folder) if name == "auto" else name.replace("-", "_")
    if family not in _plugins.names(_FAMILY):
        raise UnknownNameError("datasets", name, _plugins.names(_FAMILY))
    place = Path(cache).expanduser() if cache is not None else None
    if place is not None and place.resolve().is_relative_to(folder.resolve()):
        raise SettingError(f"{place}: the cache lies inside the data set; name a folder elsewhere")
    loaded: Dataset = _plugins.load(_FAMILY, family).load(folder, fold=fold, strict=strict, cache=place, **settings)
    return loaded


def recognise(root: Path) -> list[str]:
    """The families whose layout a folder has."""
    return [name for name, module in _plugins.members(_FAMILY).items() if module.locate(root)]


def find_datasets(root: str | Path, depth: int = 2) -> list[FoundDataset]:
    """Every data set in a folder or up to `depth` folders below it; a recognised folder is not searched further."""
    folder = Path(root).expanduser()
    if not os.access(folder, os.R_OK | os.X_OK):
        return []
    places = ((family, module.locate(folder)) for family, module in _plugins.members(_FAMILY).items())
    here = [FoundDataset(family, place) for family, place in places if place]
    if depth == 0 or any(found.root == folder for found in here):
        return here
    below = [path for path in visible(folder) if path.is_dir()]
    # A layout that starts deeper (VOCdevkit/VOC2012) is met again on the way down.
    return list(dict.fromkeys(here + [found for path in below for found in find_datasets(path, depth - 1)]))


def looks_for() -> list[str]:
    """What each family looks for, to be listed when nothing was recognised."""
    return [str(module.LOOKS_FOR) for module in _plugins.members(_FAMILY).values()]


def label_type(n_classes: int) -> LabelType:
    """The type of label maps: uint8 as long as 255 can mean ignore."""
    return np.uint8 if n_classes <= MAX_CLASSES else np.uint16


def _detected(folder: Path) -> str:
    found = recognise(folder)
    if len(found) == 1:
        return found[0]
    listed = "\n  ".join(looks_for())
    if not found:
        raise DatasetError(f"{folder}: no data set was recognised; looked for\n  {listed}")
    raise DatasetError(f"{folder}: looks like {' and like '.join(found)}; say which it is")
