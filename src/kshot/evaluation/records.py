"""Rows of a run on disk: each process appends to a file of its own, and any set of such files merges.

A row is an episode's integers and facts. A run that was killed anywhere has whole rows and perhaps one that was cut
off, which counts as not there; a row that two processes both wrote is the same row.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kshot.io.jsonl import LineReader, LineWriter, line_of

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
        self._files: dict[Path, LineReader] = {}

    def look(self) -> list[Row]:
        """Rows that came since the last look."""
        for path in set(self.folder.glob(_PATTERN)) - self._files.keys():
            self._files[path] = LineReader(path, _is_row)
        new = [row for path in sorted(self._files) for row in self._files[path].read()]
        fresh = [row for row in new if row["episode"] not in self.rows]
        self.rows |= {row["episode"]: row for row in fresh}
        return fresh


def row_file(folder: Path, rank: int, world: int) -> LineWriter:
    """The file that process `rank` of `world` appends to. Raises `OutputError`."""
    return LineWriter(folder / f"rows-{rank}-of-{world}.jsonl", compact=True)


def _line(row: Row) -> str:
    return line_of(row, compact=True)


def _is_row(line: Row) -> bool:
    return "episode" in line and "table" in line
