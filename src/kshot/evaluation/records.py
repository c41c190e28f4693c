"""Rows of a run on disk: each process appends to a file of its own, and any set of such files merges.

A row is an episode's integers and facts. A run that was killed anywhere has whole rows and perhaps one that was cut
off, which counts as not there; a row that two processes both wrote is the same row.
"""

import hashlib
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
    watch = Watch(folder)
    watch.look()
    return watch.rows


def digest(rows: Iterable[Row]) -> str:
    """sha256 over rows in their order: equal for equal figures, whichever processes computed them."""
    return hashlib.sha256("".join(map(_line, rows)).encode()).hexdigest()


class Watch:
    """Rows of a run that others are writing; each look reads only what is new."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: dict[int, Row] = {}
        self._read: dict[Path, int] = {}

    def look(self) -> list[Row]:
        """Rows that came since the last look."""
        new = [row for path in sorted(self.folder.glob(_PATTERN)) for row in self._new_of(path)]
        fresh = [row for row in new if row["episode"] not in self.rows]
        self.rows |= {row["episode"]: row for row in fresh}
        return fresh

    def _new_of(self, path: Path) -> Iterator[Row]:
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            # Whatever follows the last line break is being written, or was cut off.
            whole, end, _ = file.read().rpartition(b"\n")
        self._read[path] = self._read.get(path, 0) + len(whole) + len(end)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                row["episode"], row["table"]
            except (ValueError, KeyError, TypeError):
                log.warning("%s: a damaged row was left out", path)
                continue
            yield row


class RowFile:
    """The file that one process appends to."""

    def __init__(self, folder: Path, rank: int, world: int):
        self.path = folder / f"rows-{rank}-of-{world}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._cut_half_line()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def append(self, row: Row) -> None:
        """Add a row, handed to the system in one piece."""
        try:
            with self.path.open("ab") as file:
                file.write(_line(row).encode())
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def _cut_half_line(self) -> None:
        """A last line that was cut off would swallow the next one."""
        if self.path.exists():
            data = self.path.read_bytes()
            if not data.endswith(b"\n"):
                with self.path.open("r+b") as file:
                    file.truncate(data.rfind(b"\n") + 1)


def _line(row: Row) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
