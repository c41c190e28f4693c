"""Nested folds: the arm that is best on one half of the classes, and what it has on the other half.

    python -m benchmarks.accuracy.methods --arms variants --sets voc coco-mini --out variants.json
    python -m benchmarks.accuracy.nested variants.json

A Markdown table. Where choosing pays, the chosen arm beats the default on the half that did not choose it; what the
default has above it there is what tuning on all classes may have lent.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.settings import arguments

Row = dict[str, Any]
_DEFAULT = "all parts"
_HALVES = (("odd", "even"), ("even", "odd"))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("results", type=Path)
    rows: list[Row] = json.loads(parser.parse_args().results.read_text())["rows"]
    print("| set | chosen on | best arm of | there (default) | on the other half (default) |")
    print("|---|---|---|---|---|")
    for name, kind in dict.fromkeys((row["data"], row["kind"]) for row in rows):
        arms = {row["arm"]: row for row in rows if (row["data"], row["kind"]) == (name, kind)}
        if None in (arms[_DEFAULT]["miou_odd"], arms[_DEFAULT]["miou_even"]):
            continue  # a single class has no halves
        for chosen_on, confirmed_on in _HALVES:
            print(_line(f"{name}, {kind}", arms, f"miou_{chosen_on}", f"miou_{confirmed_on}"))


def _line(name: str, arms: dict[str, Row], choose: str, confirm: str) -> str:
    """One half chooses, the other confirms."""
    usual, best = arms[_DEFAULT], max(arms.values(), key=lambda row: float(row[choose]))
    there, other = (f"{best[half]:.1f} ({usual[half]:.1f})" for half in (choose, confirm))
    return f"| {name} | {choose[5:]} | {len(arms)}: {best['arm']} | {there} | {other} |"


if __name__ == "__main__":
    main()
