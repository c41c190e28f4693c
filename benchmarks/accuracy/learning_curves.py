"""The curves of `kshot train episodic` as one SVG: novel mIoU of the validation after each epoch, a line a run.

python -m benchmarks.accuracy.learning_curves runs/seed runs/quick --out docs/images/episodic.svg
"""

import json
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.settings import arguments
from kshot.io.atomic import write_text
from kshot.training import log

_WIDE, _HIGH, _LEFT, _TOP, _RIGHT = 640, 300, 48, 20, 170
_COLOURS = ("#2563a8", "#b4531f", "#2e7d4f", "#7a3fa0", "#8a7a1c", "#555555")
Point = tuple[float, float]


def main() -> None:
    """Draw the runs that are named."""
    parser = arguments(__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_text(options.out, draw({run.name: curve(run) for run in options.runs}))


def curve(run: Path) -> list[Point]:
    """(epoch, mIoU in percent), beginning with the untrained head."""
    first = float(json.loads((run / "before.json").read_text())["miou"])
    found: list[dict[str, Any]] = [line for line in log.read(run) if line["kind"] == "val"]
    return [(0.0, 100 * first), *((float(n), 100 * line["miou"]) for n, line in enumerate(found, 1))]


def draw(curves: dict[str, list[Point]]) -> str:
    """An SVG with both axes from the data."""
    points = [point for line in curves.values() for point in line]
    last, low, high = max(x for x, _ in points), min(y for _, y in points), max(y for _, y in points)
    low, high = low - 1, high + 1
    wide, tall = _WIDE - _LEFT - _RIGHT, _HIGH - _TOP - 40

    def place(point: Point) -> str:
        return f"{_LEFT + wide * point[0] / last:.1f},{_TOP + tall * (high - point[1]) / (high - low):.1f}"

    parts = []
    for step in range(5):
        value = low + (high - low) * step / 4
        y = place((0, value)).split(",")[1]
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + wide}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for n, (name, line) in enumerate(curves.items()):
        colour = _COLOURS[n % len(_COLOURS)]
        path = " ".join(place(point) for point in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = place(max(line, key=lambda point: point[1])).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + wide + 14}" y="{_TOP + 14 + 20 * n}" fill="{colour}">{escape(name)}</text>')
    parts.append(f'<text x="{_LEFT + wide / 2}" y="{_HIGH - 6}" text-anchor="middle">epochs (0 to {last:.0f})</text>')
    told = "; ".join(f"{name}: {line[0][1]:.1f} to {max(y for _, y in line):.1f}" for name, line in curves.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="Novel mIoU by epoch, untrained to best: {escape(told)}">'
        f'<rect width="{_WIDE}" height="{_HIGH}" fill="white"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    main()
