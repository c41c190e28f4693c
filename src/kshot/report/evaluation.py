"""The pages of an evaluation, its report and a comparison of runs; each is one file that needs nothing beside it."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from kshot.data.base import Dataset
from kshot.evaluation.compare import Comparison
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.runner import versions
from kshot.evaluation.sweep import REPORT, RunSpec, SummaryRow
from kshot.features import FeatureCache
from kshot.io.atomic import write_text
from kshot.metrics import CalibrationCounts, EpisodeCounts, size_table
from kshot.report.charts import bars, forest, reliability, sizes
from kshot.report.qualitative import RULE, Panel, panels
from kshot.report.rendering import render
from kshot.segmenter import Segmenter

_BAR_CLASSES = 100  # FSS-1000 has a thousand; results.json holds them all
_SHOWN_RUNS = 5  # runs of a row that show episodes


def write_report(
    out: Path,
    rows: Sequence[SummaryRow],
    specs: Sequence[RunSpec],
    segmenter: Segmenter,
    command: Sequence[str],
    *,
    cache: Path | None = None,
    score_size: int | None = None,
) -> Path:
    """Write report.html into a folder of runs and return its path. specs: of all runs, to show episodes of them.

    Raises `OutputError`.
    """
    settings = rows[0].settings
    by_name = {spec.name: spec for spec in specs}
    runner_of = partial(EpisodeRunner, segmenter, cache=FeatureCache(cache), score_size=score_size)
    context = {
        "title": f"{settings['dataset']}, {settings['protocol']}",
        "settings": settings,
        "rows": rows,
        "panet": settings["protocol"] == "panet",
        "objects": settings.get("instances"),
        "warnings": list(dict.fromkeys(warning for row in rows for warning in row.warnings)),
        "overview": forest([(row.name, row.interval.value, row.interval.low, row.interval.high) for row in rows]),
        "sections": [{"row": row, **_charts(row), "panels": _panels(row, by_name, runner_of)} for row in rows],
        "rule": RULE,
        "command": shlex.join(command),
        "facts": _facts(settings),
        "everything": json.dumps({"settings": settings, "versions": versions()}, indent=2),
    }
    write_text(out / REPORT, render("evaluation.html.j2", context))
    return out / REPORT


def write_comparison(path: Path, comparisons: Sequence[Comparison]) -> None:
    """One HTML page of runs side by side; replaces what lies there. Raises `OutputError`."""
    groups: dict[str, list[Comparison]] = {}
    for each in comparisons:
        groups.setdefault(each.setting, []).append(each)
    context = {
        "groups": [(name, group, _differences(group)) for name, group in groups.items()],
        "warnings": list(dict.fromkeys(warning for each in comparisons for warning in each.warnings)),
    }
    write_text(path, render("compare.html.j2", context))


def _charts(row: SummaryRow) -> dict[str, Any]:
    """Charts of one row; classes from the best to the worst, those never seen last."""
    results = list(row.runs.values())
    ranked = sorted(row.per_class.items(), key=lambda item: -item[1] if item[1] == item[1] else 2)
    calibration = np.sum([result.calibration.to_array() for result in results], axis=0)
    table = np.concatenate([result.counts.to_table() for result in results])
    table[:, 0] = np.arange(len(table))  # the episodes of several runs as one, numbered anew
    return {
        "bars": bars(ranked[:_BAR_CLASSES]),
        "more": max(0, len(ranked) - _BAR_CLASSES),
        "reliability": reliability(CalibrationCounts.from_array(calibration)),
        "sizes": sizes(size_table(EpisodeCounts.from_table(table, row.way))),
    }


def _panels(
    row: SummaryRow, specs: Mapping[str, RunSpec], runner_of: Callable[[Dataset], EpisodeRunner]
) -> list[tuple[str, Panel]]:
    """(run, panel): of several folds or seeds fewer episodes each, so that the page stays small."""
    each = 2 if len(row.runs) == 1 else 1
    found = []
    for name, result in list(row.runs.items())[:_SHOWN_RUNS]:
        chosen = panels(runner_of(specs[name].data), specs[name].episodes, result, each)
        found += [(name, panel) for panel in chosen]
    return found


def _facts(settings: Mapping[str, Any]) -> dict[str, str]:
    scored = {
        "Scored at": settings["resolution"],
        "Ignored": settings["ignored"],
        "Seed": settings["seed"],
        "Data set's ids": settings["digest"],
    }
    return {**backbone_facts(settings), **scored, **versions()}


def backbone_facts(settings: Mapping[str, Any]) -> dict[str, str]:
    """What found the masks, for people."""
    backbone = settings["backbone"]
    return {
        "Backbone": Path(backbone["backbone"]).name,
        "Weights": backbone["identity"][:12],
        "Working size": f"{backbone['size']} px",
        "Method": settings["method"],
        "Refiner": settings["refiner"],
    }


def _differences(group: Sequence[Comparison]) -> Markup:
    """The differences to the first run as a chart."""
    return forest(
        [
            (each.run, each.difference, each.low, each.high)
            for each in group
            if each.difference is not None and each.low is not None and each.high is not None
        ]
    )
