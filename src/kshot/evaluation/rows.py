"""Rows of a run on disk: each process appends to a file of its own, and any set of such files merges.

A row is an episode's integers and facts. A run that was killed anywhere has whole rows and perhaps one that was cut
off, which counts as not there; a row that two processes both wrote is the same row.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kshot.errors import OutputError

log = logging.getLogger(__name__)
Row = dict[str, Any]
_PATTERN = "rows-*.jsonl"


def read_rows(folder: Path) -> dict[int, Row]:
    """All rows of a run by episode."""
    return {row["episode"]: row for path in sorted(folder.glob(_PATTERN)) for row in _rows_of(path)}


class RowFile:
    """The file that one process appends to."""

    def __init__(self, folder: Path, rank: int, world: int):
        self.path = folder / f"rows-{rank}-of-{world}.jsonl"
        whole = list(_rows_of(self.path)) if self.path.exists() else []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A last line that was cut off would swallow the next one: write the whole rows again.
            self.path.write_text("".join(_line(row) for row in whole), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows, flushed to the system."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(_line(row) for row in rows)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error


def _rows_of(path: Path) -> Iterator[Row]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            row["episode"], row["table"]
        except (ValueError, KeyError, TypeError):
            log.warning("%s: a row that was cut off was left out", path)
            continue
        yield row


def _line(row: Row) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
