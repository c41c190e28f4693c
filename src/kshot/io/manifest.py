"""The manifest of a folder run: manifest.jsonl has a line for each image, settings.json what the run depended on.

A shard (one part of a folder) writes manifest-I-of-N.jsonl, and manifest.jsonl takes in all of them when it ends.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict, cast

from kshot.errors import SettingError
from kshot.io.jsonl import read_lines, read_object, write_lines

MANIFEST, SETTINGS = "manifest.jsonl", "settings.json"
SHARD_MANIFESTS = "manifest-*-of-*.jsonl"
STATUSES = DONE, EMPTY, FAILED = "done", "empty", "failed"


class ClassFacts(TypedDict):
    """What was found of one class in one image."""

    present: float
    """How sure it is that the image shows the class, 0..1."""
    pixels: int
    """Pixels of the mask that have the class's label."""
    regions: int
    """Connected components of these pixels."""
    score: float
    """Mean score of these pixels, 0..1; 0 without any."""


class Record(TypedDict, total=False):
    """One line of a manifest. A failed image has a reason; any other one has what follows it."""

    input: str
    """Path of the image, relative to the folder of images; film.mp4#000010 or scan.tif#page0002 of a frame or page."""
    status: str
    """One of `STATUSES`; "empty" says that the masks are."""
    sha256: str
    """Of the file's bytes, or of a page's or frame's pixels; missing where they could not be read."""
    reason: str
    """Why the image failed."""
    size_hw: list[int]
    """Height and width of the image in pixels."""
    uncertainty: float
    """How doubtful the masks are, 0..1."""
    mask: str
    """Path of the index mask, relative to the run's folder."""
    outputs: dict[str, str]
    """Path of the file that each format wrote, relative to the run's folder."""
    classes: dict[str, ClassFacts]
    """What was found of each class, in the order of the labels."""


def read_manifest(out: Path) -> list[Record]:
    """The records of a run's folder, the last one of each image; those of shards that still run are among them.

    A line that a crash cut off is left out with a warning. Raises `SettingError` when there is no manifest.
    """
    shards = sorted(out.glob(SHARD_MANIFESTS))
    if not shards and not (out / MANIFEST).is_file():
        raise SettingError(f"{out}: no {MANIFEST} in it; give a folder that `kshot label` wrote")
    return _last([record for path in (out / MANIFEST, *shards) for record in read_records(path)])


def read_records(path: Path) -> list[Record]:
    """The records of one file, the last one of each image; none when there is no such file."""
    return _last(cast(list[Record], read_lines(path, _is_record)))


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a file of records in the order of the images' names, atomically. Raises `OutputError`."""
    write_lines(path, sorted(records, key=lambda record: record["input"]))


def read_settings(out: Path) -> dict[str, Any]:
    """What a run's settings.json holds; empty, with a warning, where it is damaged."""
    return read_object(out / SETTINGS)


def _last(records: Iterable[Record]) -> list[Record]:
    return list({record["input"]: record for record in records}.values())


def _is_record(line: dict[str, Any]) -> bool:
    return isinstance(line.get("input"), str) and line.get("status") in STATUSES
