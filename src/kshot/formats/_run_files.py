"""What the manifest and the settings of a run's folder say, which somebody may have edited."""

import json
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from kshot.errors import SupportError
from kshot.io.manifest import FAILED, MANIFEST, SETTINGS, Record
from kshot.io.names import leads_out


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return (folder / MANIFEST).is_file() and (folder / SETTINGS).is_file()


def read_run_files(run: Path) -> tuple[dict[str, Any], list[Record]]:
    """What settings.json and the lines of manifest.jsonl hold. Raises `SupportError`."""
    try:
        settings = json.loads((run / SETTINGS).read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (run / MANIFEST).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise SupportError(f"{run}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise damaged(run, error) from error
    classes = settings.get("classes") if isinstance(settings, dict) else None
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise SupportError(f"{run / SETTINGS}: expected classes as a list of names, got {short(classes)}")
    return settings, [_record(run, line, classes) for line in lines]


def damaged(run: Path, error: Exception) -> SupportError:
    """The error of a run's folder whose files say something else than a run writes."""
    return SupportError(f"{run}: {MANIFEST} or {SETTINGS} is damaged ({error}); run it again")


def _record(where: Path, record: Any, classes: Sequence[str]) -> Record:
    """A line of a manifest with the keys and kinds that reading it needs."""
    try:
        fine = isinstance(record["input"], str) and isinstance(record["status"], str)
        fine = fine and not leads_out(record["input"])
        if fine and record["status"] != FAILED:
            numbers = [about[key] for about in record["classes"].values() for key in ("score", "present", "pixels")]
            paths = [record["mask"], *record["outputs"].values()]
            fine &= all(isinstance(path, str) and not leads_out(path) for path in paths)
            fine &= len(record["size_hw"]) == 2 and all(type(side) is int and side > 0 for side in record["size_hw"])
            fine &= all(type(number) in (int, float) for number in numbers) and record["classes"].keys() >= set(classes)
    except (KeyError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise SupportError(f"{where / MANIFEST}: a line that is no record of a run: {short(record)}; run it again")
    kept: Record = record
    return kept
