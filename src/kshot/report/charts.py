"""Small charts as inline SVG: no library, colours from the page's style, a text for those who cannot see them."""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from kshot.metrics import CalibrationCounts, SizeBin

_WIDTH, _LEFT, _ROW = 560, 128, 22


def bars(rows: Sequence[tuple[str, float]]) -> Markup:
    """Horizontal bars of shares in 0..1, one a row, with their values; nan has none."""
    parts = []
    for n, (name, value) in enumerate(rows):
        y, known = n * _ROW, math.isfinite(value)
        width = (_WIDTH - _LEFT - 52) * value if known else 0
        parts.append(_text(_LEFT - 10, y + 15, _short(name), "end"))
        parts.append(_rect(_LEFT, y + 4, _WIDTH - _LEFT - 52, 14, "track") + _rect(_LEFT, y + 4, width, 14, "bar"))
        parts.append(_text(_WIDTH, y + 15, f"{value:.3f}" if known else "not seen", "end", "value"))
    told = ", ".join(f"{name} {value:.3f}" for name, value in rows)
    return _svg(_WIDTH, max(len(rows), 1) * _ROW, f"IoU per class: {told}", parts)


def reliability(counts: CalibrationCounts) -> Markup:
    """Share of right pixels against their score, in bins; a perfect method lies on the diagonal."""
    side, pad = 260, 34
    parts = [*_axes(pad, side), _line(pad, side + 4, pad + side, 4, "ideal")]
    share = counts.pixels / max(int(counts.pixels.sum()), 1)
    told = []
    for n, (accuracy, confidence) in enumerate(zip(counts.accuracy, counts.mean_confidence, strict=True)):
        if not counts.pixels[n]:
            continue
        width = side / len(counts.pixels)
        height = side * float(accuracy)
        parts.append(
            _rect(pad + n * width + 1, 4 + side - height, width - 2, height, "bar", _strength(float(share[n])))
        )
        x, y = pad + side * float(confidence), 4 + side * (1 - float(accuracy))
        parts.append(Markup('<circle cx="{}" cy="{}" r="3" class="dot"/>').format(_n(x), _n(y)))
        told.append(f"{confidence:.2f} is right in {accuracy:.2f}")
    parts.append(_text(pad + side / 2, side + 42, "score of the winning class", "middle"))
    parts.append(_text(9, side / 4, "share of right pixels", "middle", "", f"rotate(-90 9 {side / 4:g})"))
    return _svg(side + pad + 14, side + 48, f"Calibration: a score of {'; '.join(told)}", parts)


def sizes(table: Sequence[SizeBin]) -> Markup:
    """IoU against the object's share of the image: the mean over objects as bars, their number beneath."""
    side, pad, width = 220, 34, 74
    parts = _axes(pad, side, width * len(table), ticks_below=False)
    for n, row in enumerate(table):
        x = pad + n * width
        parts.append(_text(x + width / 2, side + 22, f"{100 * row.low:g}–{100 * row.high:g} %", "middle"))
        parts.append(_text(x + width / 2, side + 37, f"{row.objects:,}", "middle", "soft"))
        if row.objects:
            height = side * row.mean_iou
            parts.append(_rect(x + 11, 4 + side - height, width - 22, height, "bar"))
            parts.append(_text(x + width / 2, max(side - height - 2, 12), f"{row.mean_iou:.2f}", "middle", "value"))
    length = width * len(table)
    parts.append(_text(pad + length / 2, side + 56, "share of the image, and how many objects", "middle"))
    told = ", ".join(f"{100 * r.low:g} to {100 * r.high:g} %: {r.mean_iou:.2f} of {r.objects}" for r in table)
    return _svg(pad + length + 8, side + 62, f"Mean IoU by object size: {told}", parts)


def forest(rows: Sequence[tuple[str, float, float, float]]) -> Markup:
    """Values with their intervals on one axis, and a line at zero when that lies among them."""
    low, high = min(r[2] for r in rows), max(r[3] for r in rows)
    if low < 0:
        low, high = min(low, 0.0), max(high, 0.0)
    room = (high - low or 0.1) * 0.08
    low, high = low - room, high + room
    left, right, height = 170, _WIDTH - 150, len(rows) * 30

    def place(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    parts = [_line(place(0), 0, place(0), height, "ideal")] if low < 0 < high else []
    for n, (name, value, start, end) in enumerate(rows):
        y = 30 * n + 15
        parts.append(_text(left - 14, y + 4, _short(name, 24), "end"))
        parts.append(_line(place(start), y, place(end), y, "span"))
        parts.append(Markup('<circle cx="{}" cy="{}" r="4.5" class="dot"/>').format(_n(place(value)), y))
        parts.append(_text(_WIDTH, y + 4, f"{value:.3f} [{start:.3f}, {end:.3f}]", "end", "value"))
    told = "; ".join(f"{name}: {value:.4f}, {start:.4f} to {end:.4f}" for name, value, start, end in rows)
    return _svg(_WIDTH, height, told, parts)


def curves(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], mark: float | None = None) -> Markup:
    """Values against steps, a line for each name; few points are dots too. mark: a step to be told by a rule."""
    left, top, width, height = 64.0, 8.0, _WIDTH - 64 - 86.0, 210.0
    points = [(x, y) for _, line in lines for x, y in line if math.isfinite(y)] or [(0.0, 0.0)]
    last = max(max(x for x, _ in points), 1)
    ticks = _ticks(min(y for _, y in points), max(y for _, y in points))
    low, high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return left + width * x / last, top + height * (high - y) / (high - low)

    parts = []
    for tick in ticks:
        y = place(0, tick)[1]
        parts += [_line(left, y, left + width, y, "grid"), _text(left - 7, y + 4, f"{tick:.6g}", "end", "soft")]
    for step in (0, last / 2, last):
        parts.append(_text(place(step, low)[0], top + height + 18, f"{step:,.0f}", "middle", "soft"))
    parts.append(_text(left + width / 2, top + height + 36, "step", "middle", "soft"))
    if mark is not None:
        parts.append(_line(place(mark, 0)[0], top, place(mark, 0)[0], top + height, "ideal"))
    names = []
    for n, (name, line) in enumerate(lines):  # one without points keeps its colour for the next chart
        seen = [place(x, y) for x, y in line if math.isfinite(y)]
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in seen)
        parts.append(Markup('<polyline points="{}" class="curve curve-{}"/>').format(path, n))
        if len(seen) <= 40:
            form = Markup('<circle cx="{}" cy="{}" r="3" class="point curve-{}"/>')
            parts += [form.format(_n(x), _n(y), n) for x, y in seen]
        names += [(seen[-1][1], name, n)] if seen else []
    lowest = -math.inf
    for y, name, n in sorted(names):  # names of lines that end close together stand below each other
        lowest = max(y + 4, lowest + 15)
        parts.append(_text(left + width + 8, lowest, _short(name, 12), "start", f"curve-{n}"))
    finite = [(name, [y for _, y in line if math.isfinite(y)]) for name, line in lines]
    told = "; ".join(f"{name}: {values[0]:.4g} to {values[-1]:.4g}" for name, values in finite if values)
    return _svg(_WIDTH, top + height + 44, f"Over {last:g} steps: {told}", parts)


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


def _axes(pad: float, side: float, length: float | None = None, ticks_below: bool = True) -> list[Markup]:
    wide = side if length is None else length
    parts = [_line(pad, 4 + side, pad + wide, 4 + side, "axis"), _line(pad, 4, pad, 4 + side, "axis")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        if tick:
            parts.insert(0, _line(pad, 4 + side * (1 - tick), pad + wide, 4 + side * (1 - tick), "grid"))
        parts.append(_text(pad - 6, 8 + side * (1 - tick), f"{tick:g}" if tick in {0, 0.5, 1} else "", "end", "soft"))
        if ticks_below:
            parts.append(_text(pad + side * tick, side + 22, f"{tick:g}" if tick else "", "middle", "soft"))
    return parts


def _rect(x: float, y: float, width: float, height: float, kind: str, opacity: float = 1.0) -> Markup:
    form = Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="2" class="{}" fill-opacity="{}"/>')
    return form.format(_n(x), _n(y), _n(max(width, 0)), _n(max(height, 0)), kind, _n(opacity))


def _line(x0: float, y0: float, x1: float, y1: float, kind: str) -> Markup:
    form = Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>')
    return form.format(_n(x0), _n(y0), _n(x1), _n(y1), kind)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "", transform: str = "") -> Markup:
    form = Markup('<text x="{}" y="{}" text-anchor="{}" class="{}" transform="{}">{}</text>')
    return form.format(_n(x), _n(y), anchor, kind, transform, escape(words))


def _strength(share: float) -> float:
    """Bins with few pixels are pale: what happens there hardly counts."""
    return min(1.0, 0.3 + 1.4 * math.sqrt(share))


def _short(name: str, most: int = 17) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
