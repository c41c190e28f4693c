"""The records of a run for the page, column by column: a hundred thousand of them parse and sort in a moment."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from statistics import median
from typing import Any

from kshot.io.manifest import FAILED, Record
from kshot.report.run import Run, facts_of

UNIT = 10_000  # fractions go as whole numbers of this one: shorter, and what the manifest rounds to
_FACTS = (("present", UNIT), ("pixels", 1), ("objects", 1), ("score", UNIT))
_RATIOS = (0.8, 1.8)  # width by height that a card may have


def columns_of(run: Run, places: Mapping[str, int]) -> dict[str, Any]:
    """The columns of a run's records in the order of their names, numbers in them by value.

    places: of the images that the page carries itself, where each one stands among them. Status is a letter for each
    record; facts are lists of present, pixels, objects and score by class; outputs are a rule by format, and what the
    rule does not make is listed by itself.
    """
    records = sorted(run.records, key=lambda record: natural(record["input"]))
    sizes = [(height, width) for height, width in (record.get("size_hw") or (0, 0) for record in records)]
    kinds = {size: index for index, size in enumerate(dict.fromkeys(sizes))}
    facts: list[Mapping[str, Mapping[str, Any]]] = [facts_of(record) for record in records]
    rules = _rules(records)
    return {
        "names": [record["input"] for record in records],
        "status": "".join(record["status"][0] for record in records),
        "uncertainty": [round(UNIT * record.get("uncertainty", 0.0)) for record in records],
        "sizes": list(kinds),
        "size": [kinds[size] for size in sizes],
        "facts": [
            [[round(unit * each.get(name, {}).get(key, 0)) for each in facts] for key, unit in _FACTS]
            for name in run.classes
        ],
        "rules": rules,
        "outputs": _by_place(records, lambda record: _exceptional(record, rules)),
        "reasons": _by_place(records, lambda r: str(r.get("reason", "")) if r["status"] == FAILED else None),
        "embedded": _by_place(records, lambda record: places.get(record["input"])),
        "ratio": _ratio(sizes),
    }


def natural(name: str) -> list[str | int]:
    """A key that puts b2 before b10, whatever the case."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)]


def _by_place(records: Sequence[Record], of: Any) -> dict[int, Any]:
    """What a few records have, by where they stand."""
    found = ((index, of(record)) for index, record in enumerate(records))
    return {index: value for index, value in found if value is not None}


def _rules(records: Sequence[Record]) -> dict[str, tuple[str, str]]:
    """What stands before and after an image's name without its suffix, by format, in the first image with outputs."""
    first = next((record for record in records if record.get("outputs")), None)
    rules: dict[str, tuple[str, str]] = {}
    if not first or not (stem := _stem(first["input"])):
        return rules
    for name, path in first["outputs"].items():
        before, found, after = path.rpartition(stem)
        if found:
            rules[name] = (before, after)
    return rules


def _exceptional(record: Record, rules: Mapping[str, tuple[str, str]]) -> dict[str, str] | None:
    """The outputs of a record that the rules do not make."""
    outputs: dict[str, str] = record.get("outputs", {})
    stem = _stem(record["input"])
    made = {name: f"{before}{stem}{after}" for name, (before, after) in rules.items()}
    return None if record["status"] == FAILED or outputs == made else outputs


def _stem(name: str) -> str:
    """The page does the same: without the last suffix, if the file's name does not begin with its dot."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix and name.endswith(suffix) else name


def _ratio(sizes: Sequence[tuple[int, int]]) -> float:
    """Width by height of the cards: that of the middle image, within limits."""
    ratios = [width / height for height, width in sizes if height]
    low, high = _RATIOS
    return round(min(high, max(low, median(ratios) if ratios else 4 / 3)), 3)
