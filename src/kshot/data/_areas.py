"""How many pixels each class has in each image: one pass over the masks, kept in a cache folder.

The cache is a CSV whose name changes with the list and with the masks; a damaged one is made again. A folder that
cannot be written costs a warning, once, and nothing else.
"""

import csv
import hashlib
import io
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kshot.errors import OutputError
from kshot.io.atomic import write_text

if TYPE_CHECKING:
    from kshot.data.base import Dataset

_log = logging.getLogger(__name__)
_warned: set[Path] = set()


class Pair(NamedTuple):
    """A class in an image; area: its pixels in the label map."""

    image: str
    class_id: int
    area: int


def read_or_scan(dataset: "Dataset", split: str) -> tuple[Pair, ...]:
    """Every class of every image of a split, by image, then class id; from the cache when there is one."""
    if dataset.cache is None:
        return _scan(dataset, split)
    path = dataset.cache / f"areas-{dataset.family}-{split}-{_stamp(dataset, split)}.csv"
    kept = _read_areas(path)
    if kept is None:
        kept = _scan(dataset, split)
        _write_areas(path, kept)
    return kept


def _scan(dataset: "Dataset", split: str) -> tuple[Pair, ...]:
    pairs = []
    for image in dataset.ids(split):
        counts = np.bincount(dataset.truth(image).ravel())[: len(dataset.classes) + 1]
        pairs += [Pair(image, int(c), int(counts[c])) for c in np.flatnonzero(counts) if c]
    return tuple(pairs)


def _stamp(dataset: "Dataset", split: str) -> str:
    """Changes with the list and with the size or time of any file that a mask comes from."""
    times: dict[Path, str] = {}
    for image in dataset.ids(split):
        source = dataset.items[image].source
        if source not in times:
            status = source.stat() if source.exists() else None
            times[source] = f"{status.st_size} {status.st_mtime_ns}" if status else "absent"
    lines = (f"{image} {times[dataset.items[image].source]}" for image in dataset.ids(split))
    return digest([dataset.layout, *dataset.classes, *lines])


def _read_areas(path: Path) -> tuple[Pair, ...] | None:
    """The cached table; None when there is none or it is damaged, and the masks are read again."""
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        if rows.pop() != ["end", str(len(rows) - 1), ""]:
            return None
        return tuple(Pair(image, int(class_id), int(area)) for image, class_id, area in rows[1:])
    except (OSError, ValueError, IndexError, csv.Error):
        return None


def _write_areas(path: Path, pairs: tuple[Pair, ...]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("image", "class_id", "area"), *pairs, ("end", len(pairs), "")])
    try:
        write_text(path, buffer.getvalue())
    except OutputError as error:
        _warn_once(path.parent, str(error))


def _warn_once(folder: Path, reason: str) -> None:
    if folder not in _warned:
        _warned.add(folder)
        _log.warning("the areas of the masks are not cached, and are read again next time: %s", reason)


def digest(lines: Iterable[str]) -> str:
    """The first 16 letters of the SHA-256 of some lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
