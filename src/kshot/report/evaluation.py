"""The report of an evaluation: one HTML file that needs nothing beside it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kshot.evaluation.compare import Pair
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.runner import versions
from kshot.evaluation.sweep import REPORT, Cell, Line
from kshot.features import FeatureCache
from kshot.io.atomic import write_text
from kshot.metrics import CalibrationCounts, EpisodeCounts, size_table
from kshot.report.charts import bars, forest, reliability, sizes
from kshot.report.page import render
from kshot.report.qualitative import RULE, panels
from kshot.segmenter import Segmenter

_BAR_CLASSES = 100  # FSS-1000 has a thousand; results.json holds them all


def write_report(
    out: Path,
    lines: Sequence[Line],
    cells: Mapping[str, Cell],
    segmenter: Segmenter,
    command: Sequence[str],
    *,
    cache: Path | None = None,
    score_size: int | None = None,
) -> Path:
    """Write report.html into a folder of runs and return its path. cells: by the runs' names, for the pictures.

    Raises `OutputError`.
    """
    context = {
        "title": f"{lines[0].first.settings['dataset']}, {lines[0].first.settings['protocol']}",
        "settings": lines[0].first.settings,
        "lines": lines,
        "panet": lines[0].first.settings["protocol"] == "panet",
        "remarks": list(dict.fromkeys(remark for line in lines for remark in line.remarks)),
        "overview": forest([(line.name, line.interval.value, line.interval.low, line.interval.high) for line in lines]),
        "parts": [_part(line, cells, segmenter, cache, score_size) for line in lines],
        "rule": RULE,
        "command": shlex.join(command),
        "facts": _facts(lines[0].first.settings),
        "everything": json.dumps({"settings": lines[0].first.settings, "versions": versions()}, indent=2),
    }
    write_text(out / REPORT, render("evaluation.html.j2", context))
    return out / REPORT


def _part(
    line: Line, cells: Mapping[str, Cell], segmenter: Segmenter, cache: Path | None, score_size: int | None
) -> dict[str, Any]:
    """Charts and pictures of one line."""
    results = list(line.runs.values())
    counted = np.sum([result.calibration.to_array() for result in results], axis=0)
    shown = []
    # Of several folds or seeds a few episodes each: the page stays small.
    each = 2 if len(results) == 1 else 1
    for name, result in list(line.runs.items())[:5]:
        cell = cells[name]
        runner = EpisodeRunner(segmenter, cell.data, FeatureCache(cache), score_size)
        shown += [(name, panel) for panel in panels(runner, cell.drawn, result, each)]
    ranked = sorted(line.per_class.items(), key=lambda item: -item[1] if item[1] == item[1] else 2)
    return {
        "line": line,
        "bars": bars(ranked[:_BAR_CLASSES]),
        "more": max(0, len(ranked) - _BAR_CLASSES),
        "reliability": reliability(CalibrationCounts.from_array(counted)),
        "sizes": sizes(size_table(_pooled([result.counts for result in results]))),
        "panels": shown,
    }


def _pooled(runs: Sequence[EpisodeCounts]) -> EpisodeCounts:
    """The episodes of several runs as one, numbered anew."""
    table = np.concatenate([run.to_table() for run in runs])
    table[:, 0] = np.arange(len(table))
    return EpisodeCounts.from_table(table, runs[0].way)


def _facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    backbone = settings["backbone"]
    named = {
        "Backbone": Path(backbone["backbone"]).name,
        "Weights": backbone["identity"][:12],
        "Working size": f"{backbone['size']} px",
        "Method": settings["method"],
        "Refiner": settings["refiner"],
        "Scored at": settings["resolution"],
        "Ignored": settings["ignored"],
        "Seed": settings["seed"],
        "Data set's ids": settings["digest"],
        **versions(),
    }
    return [(name, str(value)) for name, value in named.items()]


def write_comparison(path: Path, pairs: Sequence[Pair]) -> None:
    """One HTML page of the comparison. Raises `OutputError`."""
    settings = list(dict.fromkeys(pair.setting for pair in pairs))
    groups = [(name, [pair for pair in pairs if pair.setting == name]) for name in settings]
    context = {
        "groups": [(name, group, forest(_differences(group))) for name, group in groups],
        "remarks": list(dict.fromkeys(remark for pair in pairs for remark in pair.remarks)),
    }
    write_text(path, render("compare.html.j2", context))


def _differences(group: Sequence[Pair]) -> list[tuple[str, float, float, float]]:
    return [
        (p.run, p.difference, p.low, p.high)
        for p in group
        if p.difference is not None and p.low is not None and p.high is not None
    ]
