"""CSV files: names are data, so one that a spreadsheet would run as a formula is marked, and comes back as it was."""

import csv
import io
from collections.abc import Iterable, Sequence

# What spreadsheets take for the beginning of a formula, and the mark itself, so that every text comes back.
_MARK = "'"
_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", _MARK)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV, lines ending with a newline alone.

    A text that begins like a formula gets an apostrophe before it; numbers stay numbers.
    """
    return "".join(_line(row) for row in rows)


def csv_rows(text: str) -> list[list[str]]:
    """The rows that `csv_text` wrote. Raises `csv.Error`."""
    return [[cell.removeprefix(_MARK) for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]


def _line(row: Sequence[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([_cell(value) for value in row])  # quotes what its own end of lines holds, CR and LF
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: object) -> object:
    return _MARK + value if isinstance(value, str) and value.startswith(_BEGINNINGS) else value
