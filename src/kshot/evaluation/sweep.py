"""Several settings in one go: every N and K, fold and seed a run of its own, and lines that average folds and seeds."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kshot.data.base import Dataset
from kshot.episodes.protocols import PROTOCOLS
from kshot.episodes.sampler import Episodes, draw_episodes
from kshot.errors import SettingError
from kshot.evaluation.result import Result, plain
from kshot.evaluation.runner import evaluate, load_result, versions
from kshot.evaluation.workers import Progress
from kshot.io.atomic import write_text
from kshot.io.manifest import MANIFEST
from kshot.metrics import Interval, bootstrap_mean
from kshot.segmenter import Segmenter

RESULTS, TABLE, REPORT = "results.json", "results.csv", "report.html"
# The three cells of the starting paper's table.
SEED_CELLS = ((1, 1), (2, 1), (1, 5))
FIGURES = ("miou", "fb_iou", "strict_miou", "presence_accuracy", "boundary", "calibration_error", "panet_miou")


@dataclass(frozen=True, eq=False)
class Cell:
    """One run: a data set (with its fold), the episodes, and the folder's name."""

    name: str
    data: Dataset
    drawn: Episodes


@dataclass(frozen=True, eq=False)
class Line:
    """A line of the table: the runs of one N and K, averaged over folds or seeds."""

    way: int
    shot: int
    runs: dict[str, Result] = field(repr=False)

    @property
    def first(self) -> Result:
        """A run, for what all of them share."""
        return next(iter(self.runs.values()))

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.way}-way {self.shot}-shot"

    @property
    def over(self) -> str:
        """What the line averages, or the fold that it shows."""
        folds = [result.settings["fold"] for result in self.runs.values()]
        seeds = {result.settings["seed"] for result in self.runs.values()}
        told = "no folds" if folds[0] is None else f"fold {folds[0]}"
        if len(set(folds)) > 1:
            told = f"mean of {len(set(folds))} folds"
        return told + (f", {len(seeds)} seeds" if len(seeds) > 1 else "")

    @property
    def episodes(self) -> int:
        """Of all its runs together."""
        return sum(len(result.rows) for result in self.runs.values())

    @property
    def remarks(self) -> tuple[str, ...]:
        """Each remark once."""
        return tuple(dict.fromkeys(remark for result in self.runs.values() for remark in result.remarks))

    @cached_property
    def interval(self) -> Interval:
        """The main figure with its 95 % interval over episodes."""
        return bootstrap_mean([result.score for result in self.runs.values()])

    def figure(self, name: str) -> float:
        """A figure of `Result`, averaged over the runs."""
        return float(np.mean([getattr(result, name) for result in self.runs.values()]))

    @cached_property
    def per_class(self) -> dict[str, float]:
        """{class: IoU}, averaged over the runs that have the class."""
        found: dict[str, list[float]] = {}
        for result in self.runs.values():
            for name, value in result.per_class.items():
                found.setdefault(name, []).append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def summary(self) -> dict[str, Any]:
        """The line for JSON."""
        figures = {name: self.figure(name) for name in FIGURES}
        return {
            "way": self.way,
            "shot": self.shot,
            "over": self.over,
            "runs": list(self.runs),
            "episodes": self.episodes,
            "metric": self.first.score.name,
            "interval": plain([self.interval.low, self.interval.high]),
            **plain(figures),
            "per_class": plain(self.per_class),
            "remarks": list(self.remarks),
        }


def plan_cells(
    data: Callable[[int | None], Dataset],
    *,
    folds: Sequence[int | None] = (None,),
    protocol: str = "hsnet",
    ways: Sequence[int] = (),
    shots: Sequence[int] = (),
    count: int | None = None,
    seed: int | None = None,
    **how: bool,
) -> list[Cell]:
    """The runs of a command, drawn before the first one starts, so that a wrong setting is known at once.

    data: the data set of a fold. ways, shots: every pair of them; none of both is 1-way 1-shot, under protocol
    `seed` the starting paper's three cells. seed: None runs the protocol's published seeds. how: as `episodes` takes.
    """
    pairs = [(way, shot) for way in ways or (1,) for shot in shots or (1,)]
    if protocol == "seed" and not ways and not shots:
        pairs = list(SEED_CELLS)
    seeds = PROTOCOLS[protocol].seeds if seed is None and protocol in PROTOCOLS else (seed or 0,)
    opened = {fold: data(fold) for fold in folds}
    cells = []
    for way, shot in pairs:
        for fold in folds:
            for number in seeds:
                drawn = draw_episodes(opened[fold], protocol, way, shot, count, number, **how)
                name = f"{way}way-{shot}shot" + ("" if fold is None else f"-fold{fold}")
                cells.append(Cell(name + (f"-seed{number}" if len(seeds) > 1 else ""), opened[fold], drawn))
    return cells


def run_cells(
    segmenter: Segmenter,
    cells: Sequence[Cell],
    out: Path,
    progress: Callable[[str], Progress | None] = lambda name: None,
    **how: Any,
) -> list[Line]:
    """Evaluate every cell into a folder of its own under `out`. how: as `evaluate` takes."""
    _check_same_cells(out, [cell.name for cell in cells])
    results = {}
    for cell in cells:
        results[cell.name] = evaluate(
            segmenter, cell.data, episodes=cell.drawn, out=out / cell.name, progress=progress(cell.name), **how
        )
    return to_lines(results)


def to_lines(results: dict[str, Result]) -> list[Line]:
    """Runs grouped by N and K."""
    groups: dict[tuple[int, int], dict[str, Result]] = {}
    for name, result in results.items():
        groups.setdefault((result.settings["way"], result.settings["shot"]), {})[name] = result
    return [Line(way, shot, runs) for (way, shot), runs in groups.items()]


def load_lines(out: Path) -> list[Line]:
    """The lines of a folder that `kshot eval` wrote, or of one run. Raises `SettingError`."""
    if (out / "run.json").is_file():
        return to_lines({out.name: load_result(out)})
    if not (out / RESULTS).is_file():
        raise SettingError(f"{out}: holds no finished evaluation (no {RESULTS}); give a folder that `kshot eval` wrote")
    names = json.loads((out / RESULTS).read_text(encoding="utf-8"))["runs"]
    return to_lines({name: load_result(out / name) for name in names})


def write_results(out: Path, lines: Sequence[Line], command: Sequence[str]) -> dict[str, Any]:
    """Write results.json and results.csv; returns what stands in the former. Raises `OutputError`."""
    runs = {name: result.summary() for line in lines for name, result in line.runs.items()}
    facts = {
        "command": shlex.join(command),
        "versions": versions(),
        "table": [line.summary() for line in lines],
        "runs": runs,
    }
    write_text(out / RESULTS, json.dumps(facts, indent=2) + "\n")
    write_text(out / TABLE, "".join(row + "\n" for row in _csv(lines)))
    return facts


def _csv(lines: Sequence[Line]) -> list[str]:
    heads = ["protocol", "dataset", "split", "way", "shot", "over", "episodes", "metric", "low", "high", *FIGURES]
    rows = [",".join(heads)]
    for line in lines:
        settings = line.first.settings
        words = [settings["protocol"], settings["dataset"], settings["split"], line.way, line.shot]
        words += [line.over.replace(",", " and"), line.episodes, line.first.score.name]
        numbers = [line.interval.low, line.interval.high, *(line.figure(name) for name in FIGURES)]
        rows.append(",".join([*map(str, words), *(f"{number:.6f}" for number in numbers)]))
    return rows


def _check_same_cells(out: Path, names: Sequence[str]) -> None:
    """A folder that holds another command's runs is refused before anything is written."""
    if not out.is_dir():
        return
    there = {path.parent.name for path in out.glob("*/run.json")}
    other = sorted(there - set(names))
    if other:
        raise SettingError(f"{out}: holds other settings ({', '.join(other)}); choose another folder")
    if (out / MANIFEST).exists():
        raise SettingError(f"{out}: holds a labelling run; choose another folder")


__all__ = ["Cell", "Line", "load_lines", "plan_cells", "run_cells", "to_lines", "write_results"]
