"""Rows of a run on disk: each process appends to a file of its own, and any set of such files merges.

A row is an episode's integers and facts. A run that was killed anywhere has whole rows and perhaps one that was cut
off, which counts as not there. Every other line has to be a row of this run, because the figures are computed from
nothing else; and a row that two processes both wrote is the same row.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from kshot.errors import SettingError
from kshot.evaluation.run_file import strict_json
from kshot.io.jsonl import LineWriter, line_of
from kshot.metrics import CalibrationCounts, ObjectMatches

Row = dict[str, Any]
_MOST = 2**53  # pixels: far more than any image has, and what every reader of JSON holds exactly
_BINS = CalibrationCounts.zeros().to_array().shape
_OVER = 1e-3  # sums of float32 scores may end a little outside 0..1


@dataclass(frozen=True)
class RowRules:
    """What a row of a run has to be."""

    episodes: int
    """Of the run; a row's number is below it."""
    way: int
    """N, classes of an episode."""
    classes: frozenset[int]
    """The class ids that the run's episodes ask for."""
    objects: bool = False
    """Whether a row says of each way which objects were found, and how many are true."""
    sizes: tuple[int, ...] = ()
    """The working sizes of which a row says one, where each episode chooses its own."""

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "RowRules":
        """Those of a run.json."""
        settings = run["settings"]
        classes, sizes = frozenset(run["classes"]), tuple(settings.get("sizes", ()))
        return cls(settings["episodes"], settings["way"], classes, "instances" in settings, sizes)

    def fault(self, row: Any) -> str:
        """What is wrong with a row; empty for a good one."""
        if not isinstance(row, dict):
            return f"expected an object, got {short(row)}"
        if not _is_count(row.get("episode"), self.episodes - 1):
            return f"expected 'episode' in 0..{self.episodes - 1}, got {short(row.get('episode'))}"
        checks = {
            "table": (self._is_table(row), f"the episode's number, its {self.way} classes and counts that agree"),
            "present": (self._are_fractions(row.get("present")), f"{self.way} numbers in 0..1"),
            "boundary": (self._are_fractions(row.get("boundary"), None), f"{self.way} numbers in 0..1, or null"),
            "calibration": (_is_calibration(row.get("calibration")), f"{_BINS[0]} lists of {_BINS[1]} counts"),
            "uncertainty": (_is_fraction(row.get("uncertainty")), "a number in 0..1"),
        }
        if self.objects:
            checks["objects"] = self._are_objects(row.get("objects")), f"{self.way} pairs of a count and its objects"
        if self.sizes:
            checks["size"] = row.get("size") in self.sizes, f"one of {', '.join(map(str, self.sizes))}"
        if row.keys() != {"episode", *checks}:
            return f"expected the keys episode, {', '.join(checks)}, got {short(sorted(row))}"
        wrong = next((key for key, (fits, _) in checks.items() if not fits), None)
        return f"expected {wrong!r} as {checks[wrong][1]}, got {short(row.get(wrong))}" if wrong else ""

    def _is_table(self, row: Row) -> bool:
        table: Any = row.get("table")
        ways = self.way
        if not _are_counts(table, 1 + ways + 3 * (ways + 1)) or table[0] != row["episode"]:
            return False
        classes, counts = table[1 : 1 + ways], table[1 + ways :]
        both, predicted, truth = (counts[start : start + ways + 1] for start in range(0, len(counts), ways + 1))
        return (
            len(set(classes)) == ways
            and self.classes.issuperset(classes)
            and all(b <= min(p, t) for b, p, t in zip(both, predicted, truth, strict=True))
            and sum(predicted) == sum(truth)
        )

    def _are_objects(self, values: Any) -> bool:
        return isinstance(values, list) and len(values) == self.way and all(map(_is_matches, values))

    def _are_fractions(self, values: Any, *others: None) -> bool:
        fits = isinstance(values, list) and len(values) == self.way
        return fits and all(_is_fraction(value) or value in others for value in values)


def read_rows(folder: Path, rules: RowRules) -> dict[int, Row]:
    """All rows of a run by episode. Raises `SettingError` that names the file and the line of a wrong one."""
    reader = RowReader(folder, rules)
    reader.read()
    return reader.rows


def rows_sha256(rows: Iterable[Row]) -> str:
    """sha256 over rows in their order: equal for equal figures, whichever processes computed them."""
    return hashlib.sha256("".join(line_of(row, compact=True) for row in rows).encode()).hexdigest()


class RowReader:
    """Rows of a run that others may still be writing; each `read` reads only what is new."""

    def __init__(self, folder: Path, rules: RowRules):
        self.folder, self.rules = folder, rules
        self.rows: dict[int, Row] = {}
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines of each file

    def read(self) -> list[Row]:
        """Rows that came since the last call. Raises `SettingError`."""
        fresh = []
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            for number, row in self._new_rows(path):
                known = self.rows.setdefault(row["episode"], row)
                if known is row:
                    fresh.append(row)
                elif known != row:
                    raise _wrong(path, number, f"another row of episode {row['episode']} says otherwise")
        return fresh

    def _new_rows(self, path: Path) -> Iterable[tuple[int, Row]]:
        offset, lines = self._read.get(path, (0, 0))
        try:
            with path.open("rb") as file:
                file.seek(offset)
                # A line without an end is still being written, or was cut off by a kill.
                whole, end, _ = file.read().rpartition(b"\n")
        except OSError as error:
            raise SettingError(f"{path}: cannot be read ({error.strerror or error})") from error
        found = whole.split(b"\n") if end else []
        self._read[path] = offset + len(whole) + len(end), lines + len(found)
        for number, line in enumerate(found, lines + 1):
            try:
                row = strict_json(line)
            except ValueError as error:
                raise _wrong(path, number, f"not JSON ({error})") from error
            fault = self.rules.fault(row)
            if fault:
                raise _wrong(path, number, fault)
            yield number, row


def row_file(folder: Path, rank: int, world: int) -> LineWriter:
    """The file that process `rank` of `world` appends to. Raises `OutputError`."""
    return LineWriter(folder / f"rows-{rank}-of-{world}.jsonl", compact=True)


def _wrong(path: Path, number: int, fault: str) -> SettingError:
    return SettingError(
        f"{path}, line {number}: {fault}; remove this line and run the same command, which does its episode again"
    )


def _is_count(value: Any, most: int = _MOST) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= most


def _are_counts(values: Any, length: int) -> bool:
    return isinstance(values, list) and len(values) == length and all(map(_is_count, values))


def matches_row(matches: ObjectMatches) -> list[Any]:
    """What a row says of the objects of a way: how many are true, and [score, shared, union] of each found."""
    return [matches.true, [list(each) for each in zip(*(v.tolist() for v in _columns(matches)), strict=True)]]


def matches_of(values: Sequence[Any]) -> ObjectMatches:
    """Undo `matches_row`."""
    scores, shared, union = np.array(values[1], np.float64).reshape(-1, 3).T
    return ObjectMatches(values[0], scores, shared.astype(np.int64), union.astype(np.int64))


def _columns(matches: ObjectMatches) -> tuple[NDArray[Any], ...]:
    return matches.scores, matches.shared, matches.union


def _is_matches(values: Any) -> bool:
    if not isinstance(values, list) or len(values) != 2 or not _is_count(values[0]) or not isinstance(values[1], list):
        return False
    found = [each for each in values[1] if isinstance(each, list) and len(each) == 3 and _is_fraction(each[0])]
    fits = all(_are_counts(each[1:], 2) and (not each[1] or each[1] <= each[2] <= 2 * each[1]) for each in found)
    return fits and len(found) == len(values[1]) and sum(each[1] > 0 for each in found) <= values[0]


def _is_calibration(values: Any) -> bool:
    if not isinstance(values, list) or len(values) != _BINS[0] or not all(_are_counts(v, _BINS[1]) for v in values):
        return False
    pixels, _, right = values
    return all(r <= p for r, p in zip(right, pixels, strict=True))


def _is_fraction(value: Any) -> bool:
    return type(value) in (int, float) and -_OVER <= value <= 1 + _OVER  # nan is in no range
