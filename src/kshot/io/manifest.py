"""The manifest of a folder run: manifest.jsonl has a line for each image, settings.json what the run depended on.

A shard (one part of a folder) writes manifest-I-of-N.jsonl, and manifest.jsonl takes in all of them when it ends.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, cast

from kshot.errors import SettingError
from kshot.io.jsonl import read_lines, read_object, write_lines
from kshot.io.names import leads_out

MANIFEST, SETTINGS = "manifest.jsonl", "settings.json"
SHARD_MANIFESTS = "manifest-*-of-*.jsonl"
STATUSES = DONE, EMPTY, FAILED = "done", "empty", "failed"


class ClassFacts(TypedDict):
    """What was found of one class in one image."""

    present: float
    """How sure it is that the image shows the class, 0..1."""
    pixels: int
    """Pixels of the mask that have the class's label."""
    objects: int
    """Their connected components, or what `instances` made of them: as many as files of objects hold."""
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
    mask_sha256: str
    """Of the mask's labels, row by row, a byte each: whether a person has changed it since."""
    outputs: dict[str, str]
    """Path of the file that each format wrote, relative to the run's folder."""
    specks: int
    """Connected components that were left out of the mask since they are smaller than the run's least area."""
    classes: dict[str, ClassFacts]
    """What was found of each class, in the order of the labels."""


def read_manifest(out: Path) -> list[Record]:
    """The records of a run's folder, the last one of each image; those of shards that still run are among them.

    A line that a crash cut off is left out with a warning. Raises `SettingError` when there is no manifest.
    """
    if not is_begun(out):
        raise SettingError(f"{out}: no {MANIFEST} in it; give a folder that `kshot label` wrote")
    return _last(
        [record for path in (out / MANIFEST, *sorted(out.glob(SHARD_MANIFESTS))) for record in read_records(path)]
    )


def is_begun(out: Path) -> bool:
    """Whether a folder holds the manifest of a run or of a shard."""
    return (out / MANIFEST).is_file() or any(out.glob(SHARD_MANIFESTS))


def read_records(path: Path) -> list[Record]:
    """The records of one file, the last one of each image; none when there is no such file."""
    return _last(cast(list[Record], read_lines(path, _is_record)))


def stem_of(record: Record) -> str:
    """What the files of an image are called, below the folder of each format and without suffix; "" without a mask."""
    parts = PurePosixPath(record.get("mask", "")).parts[1:]
    return PurePosixPath(*parts).with_suffix("").as_posix() if parts else ""


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a file of records in the order of the images' names, atomically. Raises `OutputError`."""
    write_lines(path, sorted(records, key=lambda record: record["input"]))


def read_settings(out: Path) -> dict[str, Any]:
    """What a run's settings.json holds; empty, with a warning, where it is damaged."""
    return read_object(out / SETTINGS)


def _last(records: Iterable[Record]) -> list[Record]:
    return list({record["input"]: record for record in records}.values())


def _is_record(line: dict[str, Any]) -> bool:
    """Whether a line is a record all of whose paths stay below their folders."""
    outputs = line.get("outputs", {})
    if not isinstance(outputs, dict) or line.get("status") not in STATUSES:
        return False
    paths = [line.get("input"), *outputs.values()]
    paths += [line["mask"]] if "mask" in line else []
    return all(isinstance(path, str) and not leads_out(path) for path in paths)
