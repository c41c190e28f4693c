"""report.html of a training run: curves of the losses, settings, the best state, and why the run ended."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from kshot.errors import TrainingError
from kshot.io.atomic import write_text
from kshot.report.charts import curves
from kshot.report.rendering import REPORT, render
from kshot.training import log

_POINTS = 240  # of a curve; more could not be told apart
_FIRST = ("loss", "lr")
_SKIPPED = {"step", "kind", "seconds"}
Line = dict[str, Any]
Points = list[tuple[float, float]]


def write_report(out: Path) -> Path:
    """Write report.html into the folder of a run, ended or not, and return its path.

    Raises `TrainingError` where there is no run, or one of another version, and `OutputError`.
    """
    try:
        settings = json.loads((out / log.SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{out / log.SETTINGS}: no settings of a training run ({error})") from error
    lines = log.read(out)
    schedule = settings["schedule"]
    if "grad_accumulation_steps" not in schedule:
        raise TrainingError(f"{out / log.SETTINGS}: written by another version of kshot, which makes its report")
    best = _best(lines, schedule["monitor"])
    context = {
        "title": out.resolve().name,
        "what": settings.get("what", "training"),
        "best": best,
        "monitor": schedule["monitor"].lstrip("+"),
        "ended": _ended(lines),
        "facts": _facts(lines, settings),
        "charts": _charts(lines, best),
        "validations": [line for line in lines if line["kind"] == log.VALIDATION],
        "names": _names(lines, log.VALIDATION),
        "settings": [(name, value) for name, value in settings.items() if not isinstance(value, dict)],
        "schedule": list(schedule.items()),
        "everything": json.dumps(settings, indent=2),
    }
    write_text(out / REPORT, render("training.html.j2", context))
    return out / REPORT


def _best(lines: Sequence[Line], monitor: str) -> Line | None:
    """The validation whose state is kept, or None before there was one."""
    name, sign = monitor.lstrip("+"), -1 if monitor.startswith("+") else 1
    found = [line for line in lines if line["kind"] == log.VALIDATION and line.get(name) == line.get(name)]
    return min(found, key=lambda line: sign * line[name], default=None)


def _ended(lines: Sequence[Line]) -> str:
    ended = lines and lines[-1]["kind"] == log.END
    return str(lines[-1]["why"]) if ended else "it goes on, or was killed and can be resumed"


def _facts(lines: Sequence[Line], settings: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = round(lines[-1]["seconds"]) if lines else 0
    step = lines[-1]["step"] if lines else 0
    schedule = settings["schedule"]
    each = schedule["batch_size"] * schedule["grad_accumulation_steps"] * settings["processes"]
    return [
        ("Steps", f"{step:,} of {schedule['steps']:,}"),
        ("Examples a step", f"{each:,}"),
        ("Time", str(timedelta(seconds=seconds))),
        ("Why it ended", _ended(lines)),
    ]


def _charts(lines: Sequence[Line], best: Line | None) -> list[tuple[str, Any]]:
    """Each figure of the log with its curves, the loss first."""
    names = dict.fromkeys([*_FIRST, *_names(lines, log.TRAIN), *_names(lines, log.VALIDATION)])
    charts = []
    for name in names:
        shown = [(kind, _thinned(_points(lines, kind, name))) for kind in (log.TRAIN, log.VALIDATION)]
        if any(points for _, points in shown):
            charts.append((name, curves(shown, best["step"] if best else None)))
    return charts


def _points(lines: Sequence[Line], kind: str, name: str) -> Points:
    return [(line["step"], line[name]) for line in lines if line["kind"] == kind and name in line]


def _thinned(points: Points) -> Points:
    """At most 240 points: means of neighbours where there are more."""
    size = max(1, -(-len(points) // _POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _names(lines: Sequence[Line], kind: str) -> list[str]:
    found = (line for line in lines if line["kind"] == kind)
    return list(dict.fromkeys(name for line in found for name in line if name not in _SKIPPED))
