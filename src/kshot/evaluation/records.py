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


def read_rows(folder: Path) -> dict[int, Row]:
    """All rows of a run by episode."""
    reader = RowReader(folder)
    reader.read()
    return reader.rows


def rows_sha256(rows: Iterable[Row]) -> str:
    """sha256 over rows in their order: equal for equal figures, whichever processes computed them."""
    return hashlib.sha256("".join(line_of(row, compact=True) for row in rows).encode()).hexdigest()


class RowReader:
    """Rows of a run that others may still be writing; each `read` reads only what is new."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: dict[int, Row] = {}
        self._files: dict[Path, LineReader] = {}

    def read(self) -> list[Row]:
        """Rows that came since the last call."""
        fresh = []
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            for row in self._files.setdefault(path, LineReader(path, _is_row)).read():
                if row["episode"] not in self.rows:
                    self.rows[row["episode"]] = row
                    fresh.append(row)
        return fresh


def row_file(folder: Path, rank: int, world: int) -> LineWriter:
    """The file that process `rank` of `world` appends to. Raises `OutputError`."""
    return LineWriter(folder / f"rows-{rank}-of-{world}.jsonl", compact=True)


def _is_row(value: Row) -> bool:
    return "episode" in value and "table" in value
