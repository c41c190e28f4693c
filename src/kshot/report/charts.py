"""Small charts as inline SVG: no library, colours from the page's style, a text for those who cannot see them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from kshot.metrics import CalibrationCounts, SizeBin

_WIDTH, _ROW = 560, 22
_FEW_POINTS = 40  # a curve of so few points shows each as a dot


@dataclass(frozen=True)
class _Plot:
    """The area of a chart in pixels, and the values at its sides."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, value: float) -> float:
        """Where a value stands, to the right."""
        return self.left + self.width * (value - self.x_range[0]) / (self.x_range[1] - self.x_range[0])

    def y(self, value: float) -> float:
        """Where a value stands, upwards."""
        return self.top + self.height * (self.y_range[1] - value) / (self.y_range[1] - self.y_range[0])


def bars(rows: Sequence[tuple[str, float]]) -> Markup:
    """Horizontal bars of values in 0..1, one a row, with the values beside them; nan has no bar."""
    parts, plot = [], _Plot(128, 0, _WIDTH - 180, _ROW * max(len(rows), 1))
    for n, (name, value) in enumerate(rows):
        y, finite = n * _ROW, math.isfinite(value)
        parts += [
            _text(plot.left - 10, y + 15, _short(name), "end"),
            _rect(plot.left, y + 4, plot.width, 14, "track"),
            _rect(plot.left, y + 4, plot.width * value if finite else 0, 14, "bar"),
            _text(_WIDTH, y + 15, f"{value:.3f}" if finite else "not seen", "end", "value"),
        ]
    told = ", ".join(f"{name} {value:.3f}" for name, value in rows)
    return _svg(_WIDTH, plot.height, f"IoU per class: {told}", parts)


def reliability(counts: CalibrationCounts) -> Markup:
    """Fraction of right pixels against their score, in bins; a perfect method lies on the diagonal."""
    plot = _Plot(34, 4, 260, 260)
    parts = _fraction_axis(plot)
    parts += [_text(plot.x(x), plot.bottom + 18, f"{x:g}", "middle", "soft") for x in (0.25, 0.5, 0.75, 1.0)]
    parts.append(_line(plot.left, plot.bottom, plot.right, plot.top, "ideal"))
    width = plot.width / len(counts.pixels)
    told = []
    for n in np.flatnonzero(counts.pixels):
        accuracy, confidence = float(counts.accuracy[n]), float(counts.mean_confidence[n])
        fraction = float(counts.pixels[n] / counts.pixels.sum())
        parts.append(_column(plot, plot.left + n * width + 1, width - 2, accuracy, _strength(fraction)))
        parts.append(_dot(plot.x(confidence), plot.y(accuracy), 3))
        told.append(f"{confidence:.2f} is right in {accuracy:.2f}")
    parts.append(_text(plot.left + plot.width / 2, plot.bottom + 38, "score of the winning class", "middle"))
    parts.append(_text(9, 65, "fraction of right pixels", "middle", "", "rotate(-90 9 65)"))
    return _svg(plot.right + 14, plot.bottom + 44, f"Calibration: a score of {'; '.join(told)}", parts)


def sizes(table: Sequence[SizeBin]) -> Markup:
    """IoU against the object's fraction of the image: the mean over objects as bars, their number beneath."""
    width = 74
    plot = _Plot(34, 4, width * len(table), 220)
    parts = _fraction_axis(plot)
    for n, row in enumerate(table):
        left = plot.left + n * width
        middle = left + width / 2
        parts.append(_text(middle, plot.bottom + 18, f"{100 * row.low:g}–{100 * row.high:g} %", "middle"))
        parts.append(_text(middle, plot.bottom + 33, f"{row.objects:,}", "middle", "soft"))
        if row.objects:
            parts.append(_column(plot, left + 11, width - 22, row.mean_iou))
            parts.append(_text(middle, max(plot.y(row.mean_iou) - 6, 12), f"{row.mean_iou:.2f}", "middle", "value"))
    words = "fraction of the image, and how many objects"
    parts.append(_text(plot.left + plot.width / 2, plot.bottom + 52, words, "middle"))
    told = ", ".join(f"{100 * r.low:g} to {100 * r.high:g} %: {r.mean_iou:.2f} of {r.objects}" for r in table)
    return _svg(plot.right + 8, plot.bottom + 58, f"Mean IoU by object size: {told}", parts)


def forest(rows: Sequence[tuple[str, float, float, float]]) -> Markup:
    """(name, value, low, high): values with their intervals on one axis, and a line at zero if it is among them."""
    low, high = min(row[2] for row in rows), max(row[3] for row in rows)
    if low < 0:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = (high - low or 0.1) * 0.08
    plot = _Plot(170, 0, _WIDTH - 320, 30 * len(rows), x_range=(low - margin, high + margin))
    parts = [_line(plot.x(0), 0, plot.x(0), plot.bottom, "ideal")] if low - margin < 0 < high + margin else []
    for n, (name, value, start, end) in enumerate(rows):
        y = 30 * n + 15
        parts += [
            _text(plot.left - 14, y + 4, _short(name, 24), "end"),
            _line(plot.x(start), y, plot.x(end), y, "span"),
            _dot(plot.x(value), y, 4.5),
            _text(_WIDTH, y + 4, f"{value:.3f} [{start:.3f}, {end:.3f}]", "end", "value"),
        ]
    told = "; ".join(f"{name}: {value:.4f}, {start:.4f} to {end:.4f}" for name, value, start, end in rows)
    return _svg(_WIDTH, plot.height, told, parts)


def curves(
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], mark: float | None = None, unit: str = "step"
) -> Markup:
    """(name, points): values against steps, a line for each name. mark: a step that a vertical rule shows."""
    finite = [(name, [(x, y) for x, y in line if math.isfinite(y)]) for name, line in lines]
    points = [point for _, line in finite for point in line] or [(0.0, 0.0)]
    last = max(max(x for x, _ in points), 1)
    ticks = _ticks(min(y for _, y in points), max(y for _, y in points))
    plot = _Plot(64, 8, _WIDTH - 150, 210, (0, last), (ticks[0], ticks[-1]))
    parts = _step_axes(plot, ticks, unit)
    if mark is not None:
        parts.append(_line(plot.x(mark), plot.top, plot.x(mark), plot.bottom, "ideal"))
    for n, (_, line) in enumerate(finite):  # one without points keeps its colour for the next chart
        parts += _curve([(plot.x(x), plot.y(y)) for x, y in line], n)
    parts += _curve_names([(plot.y(line[-1][1]), name, n) for n, (name, line) in enumerate(finite) if line], plot.right)
    told = "; ".join(f"{name}: {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in finite if line)
    return _svg(_WIDTH, plot.bottom + 44, f"Over {last:g} {unit}s: {told}", parts)


def _fraction_axis(plot: _Plot) -> list[Markup]:
    """Both axes, and 0 to 1 with its grid on the vertical one."""
    parts = [_line(plot.left, plot.y(tick), plot.right, plot.y(tick), "grid") for tick in (0.25, 0.5, 0.75, 1.0)]
    parts.append(_line(plot.left, plot.bottom, plot.right, plot.bottom, "axis"))
    parts.append(_line(plot.left, plot.top, plot.left, plot.bottom, "axis"))
    return parts + [_text(plot.left - 6, plot.y(tick) + 4, f"{tick:g}", "end", "soft") for tick in (0.0, 0.5, 1.0)]


def _column(plot: _Plot, left: float, width: float, value: float, opacity: float = 1.0) -> Markup:
    """A vertical bar from the bottom of the plot to a value."""
    return _rect(left, plot.y(value), width, plot.bottom - plot.y(value), "bar", opacity)


def _strength(fraction: float) -> float:
    """The opacity of a bin: those with few pixels are pale, because what happens there hardly counts."""
    return min(1.0, 0.3 + 1.4 * math.sqrt(fraction))


def _step_axes(plot: _Plot, ticks: Sequence[float], unit: str) -> list[Markup]:
    """Ticks with their grid on the vertical axis; first, middle and last step on the horizontal one."""
    parts = []
    for tick in ticks:
        parts.append(_line(plot.left, plot.y(tick), plot.right, plot.y(tick), "grid"))
        parts.append(_text(plot.left - 7, plot.y(tick) + 4, f"{tick:.6g}", "end", "soft"))
    last = plot.x_range[1]
    steps = (0, last / 2, last)
    parts += [_text(plot.x(step), plot.bottom + 18, f"{step:,.0f}", "middle", "soft") for step in steps]
    parts.append(_text(plot.left + plot.width / 2, plot.bottom + 36, unit, "middle", "soft"))
    return parts


def _curve(points: Sequence[tuple[float, float]], number: int) -> list[Markup]:
    """A line through points in pixels, with dots where they are few."""
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    dots = [_dot(x, y, 3, f"point curve-{number}") for x, y in points] if len(points) <= _FEW_POINTS else []
    return [Markup('<polyline points="{}" class="curve curve-{}"/>').format(path, number), *dots]


def _curve_names(ends: Sequence[tuple[float, str, int]], right: float) -> list[Markup]:
    """(y of the last point, name, number): names of curves that end close together stand below each other."""
    parts, lowest = [], -math.inf
    for y, name, number in sorted(ends):
        lowest = max(y + 4, lowest + 15)
        parts.append(_text(right + 8, lowest, _short(name, 12), "start", f"curve-{number}"))
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Two to eight round numbers that hold everything between low and high."""
    # A flat line far from zero needs ticks that can be told apart from each other.
    raw = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-12) / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    first = math.floor(low / step)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def _svg(width: float, height: float, told: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" style="max-width: {}px" role="img" aria-label="{}">')
    return head.format(_n(width), _n(height), _n(width), told) + Markup("").join(parts) + Markup("</svg>")


def _rect(x: float, y: float, width: float, height: float, kind: str, opacity: float = 1.0) -> Markup:
    form = Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="2" class="{}" fill-opacity="{}"/>')
    return form.format(_n(x), _n(y), _n(max(width, 0)), _n(max(height, 0)), kind, _n(opacity))


def _line(x0: float, y0: float, x1: float, y1: float, kind: str) -> Markup:
    form = Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>')
    return form.format(_n(x0), _n(y0), _n(x1), _n(y1), kind)


def _dot(x: float, y: float, radius: float, kind: str = "dot") -> Markup:
    return Markup('<circle cx="{}" cy="{}" r="{:g}" class="{}"/>').format(_n(x), _n(y), radius, kind)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "", transform: str = "") -> Markup:
    form = Markup('<text x="{}" y="{}" text-anchor="{}" class="{}" transform="{}">{}</text>')
    return form.format(_n(x), _n(y), anchor, kind, transform, escape(words))


def _short(name: str, most: int = 17) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
