"""A folder that `kshot label` or `kshot predict` wrote: its manifest, index masks and objects."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.checked_json import Images
from kshot.annotations.model import LabelledImage, LabelTree, Lazy, Part, shots_of
from kshot.annotations.rle import runs
from kshot.errors import MaskError, SupportError
from kshot.formats import _instances
from kshot.formats._accepted import read_accepted
from kshot.io.images import MAX_PIXELS, label_columns
from kshot.io.manifest import FAILED, MANIFEST, SETTINGS
from kshot.io.paths import unique_stems
from kshot.io.rasters import MOST_PIXELS
from kshot.types import IGNORE, Shot

LAYOUT = "kshot run: manifest.jsonl, settings.json and masks/, as `kshot label` writes them, or masks in a folder there"
Record = Mapping[str, Any]


def read_shots(folder: Path) -> list[Shot] | None:
    """The predicted masks as shots, of the images that the run read; None without a manifest. Raises `SupportError`.

    Of a folder in a run's own, such as OUT/accepted, the masks that lie there.
    """
    accepted = None if (folder / MANIFEST).is_file() else read_accepted(folder)
    if accepted is not None:
        return accepted
    tree = read_tree(folder)
    return None if tree is None else shots_of(tree)


def read_tree(where: Path, images: Path | None = None) -> LabelTree | None:
    """What a run found; `images` when its images have moved. None without a manifest. Raises `SupportError`."""
    if not (where / MANIFEST).is_file() or not (where / SETTINGS).is_file():
        return None
    try:
        settings = json.loads((where / SETTINGS).read_text(encoding="utf-8"))
        lines = (where / MANIFEST).read_text(encoding="utf-8").splitlines()
        records = [_record(where, json.loads(line)) for line in lines]
    except OSError as error:
        raise SupportError(f"{where}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise SupportError(f"{where}: {MANIFEST} or {SETTINGS} is damaged ({error}); run it again") from error
    classes = settings.get("classes") if isinstance(settings, dict) else None
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise SupportError(f"{where / SETTINGS}: expected classes as a list of names, got {short(classes)}")
    return run_tree(where, records, classes, images)


def run_tree(
    out: Path, records: Iterable[Record], classes: Sequence[str], images: Path | None = None, *, without: str = ""
) -> LabelTree:
    """The labels of a run folder from its manifest records, in the order of the inputs' names.

    Failed images are left out, since without labels they would count as holding nothing; of several records of one
    input the last holds. without: leaves out images that have an output of this format already. A mask that does not
    fit its record raises `MaskError` when its image is asked for.
    """
    last = {record["input"]: record for record in records}
    kept = [last[name] for name in sorted(last) if last[name]["status"] != FAILED]
    kept = [record for record in kept if without not in record.get("outputs", {})]
    stems = unique_stems(last)
    finder = Images(out, images or _root(out))

    def read(record: Record) -> LabelledImage:
        name = record["input"]
        height, width = (int(side) for side in record["size_hw"])
        written = record.get("outputs", {}).get(_instances.NAME)
        parts = _instances.read(out / written, (height, width)) if written else _parts(out, record, classes)
        return LabelledImage(name, (height, width), tuple(parts), finder.find(name), stems[name])

    objects = bool(kept) and all(_instances.NAME in record.get("outputs", {}) for record in kept)
    return LabelTree(tuple(classes), Lazy(kept, read), objects)


def _parts(out: Path, record: Record, classes: Sequence[str]) -> Sequence[Part]:
    """What a mask marks, one part a class; column by column, since it may be larger than any image read whole."""
    path, (height, width) = out / record["mask"], (int(side) for side in record["size_hw"])
    found: dict[int, list[NDArray[np.int64]]] = {}
    for left, columns in label_columns(path, (height, width), max(MAX_PIXELS, min(height * width, MOST_PIXELS))):
        for label in set(np.flatnonzero(np.bincount(columns.ravel())).tolist()) - {0}:
            found.setdefault(label, []).append(runs(columns == label, (0, left), (height, width)))
    wrong = sorted(label for label in found if len(classes) < label != IGNORE)
    if wrong:
        raise MaskError(f"{path}: holds the label {wrong[-1]}, expected 0..{len(classes)} for {len(classes)} classes")
    parts = []
    for label in sorted(found):
        name = "" if label == IGNORE else classes[label - 1]
        score = None if label == IGNORE else float(record["classes"][name]["score"])
        parts.append(Part.of_runs(found[label], (height, width), name, score, ignore=label == IGNORE))
    return parts


def _root(out: Path) -> Path | None:
    """The folder that a run read its images from."""
    try:
        images = json.loads((out / SETTINGS).read_text(encoding="utf-8")).get("images")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return Path(images) if isinstance(images, str) else None


def _record(where: Path, record: Any) -> Record:
    """A line of a manifest that somebody may have edited, with the keys and kinds that reading it needs."""
    try:
        fine = isinstance(record["input"], str) and isinstance(record["status"], str)
        if fine and record["status"] != FAILED:
            scores = [about["score"] for about in record["classes"].values()]
            paths = [record["mask"], *record["outputs"].values()]
            fine = all(isinstance(path, str) and ".." not in Path(path).parts for path in paths)
            fine &= len(record["size_hw"]) == 2 and all(type(score) in (int, float) for score in scores)
    except (KeyError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise SupportError(f"{where / MANIFEST}: a line that is no record of a run: {short(record)}; run it again")
    kept: Record = record
    return kept
