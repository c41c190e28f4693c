"""Markdown tables of what `benchmarks.accuracy.methods` wrote.

python -m benchmarks.accuracy.tables benchmarks/results/methods_512.json
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.settings import arguments

Row = dict[str, Any]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--against", help="print the difference to this arm beside each figure")
    options = parser.parse_args()
    rows: list[Row] = json.loads(options.results.read_text())["rows"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        print(_table([row for row in rows if row["kind"] == kind], options.against))


def _table(rows: list[Row], against: str | None) -> str:
    """Arms down, data sets across: mIoU, or strict mIoU and presence where several ways compete."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    found = {(row["arm"], row["data"]): row for row in rows}
    lines = [f"| {rows[0]['kind']} | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for arm in arms:
        cells = [_cell(found.get((arm, name)), found.get((against or "", name))) for name in sets]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row | None, other: Row | None) -> str:
    if row is None:
        return "-"
    key = "miou" if row["protocol"] == "hsnet" else "strict_miou"
    text = f"{row[key]:.1f}"
    if other is not None and other is not row:
        text += f" ({row[key] - other[key]:+.1f})"
    return text if key == "miou" else f"{text}, {row['presence_accuracy']:.0f} %"


if __name__ == "__main__":
    main()
