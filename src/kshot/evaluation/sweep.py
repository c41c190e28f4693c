"""Several runs in one go: every N and K, fold and seed is a run, and a summary row averages folds and seeds."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kshot.data.base import Dataset
from kshot.episodes.csv import read_episodes
from kshot.episodes.protocols import PROTOCOLS
from kshot.episodes.sampler import Episodes, draw_episodes
from kshot.errors import SettingError
from kshot.evaluation.result import Result, plain
from kshot.evaluation.run_file import RUN, damaged, read_json_object
from kshot.evaluation.runner import evaluate, load_result, versions
from kshot.evaluation.workers import Progress
from kshot.io.atomic import write_text
from kshot.io.manifest import MANIFEST
from kshot.metrics import Interval, ObjectFigures, bootstrap
from kshot.segmenter import Segmenter

RESULTS, TABLE, REPORT = "results.json", "results.csv", "report.html"
SEED_PAIRS = ((1, 1), (2, 1), (1, 5))  # (way, shot) in the table of the paper that kshot starts from
FIGURES = ("miou", "fb_iou", "strict_miou", "presence_accuracy", "boundary", "calibration_error", "panet_miou")

OBJECT_FIGURES = tuple(field.name for field in fields(ObjectFigures))


@dataclass(frozen=True, eq=False)
class RunSpec:
    """One run: the name of its folder, a data set (with its fold), and the episodes."""

    name: str
    data: Dataset
    episodes: Episodes


@dataclass(frozen=True, eq=False)
class SummaryRow:
    """A row of the results: the runs of one N (way) and K (shot), averaged over folds or seeds."""

    way: int
    shot: int
    runs: Mapping[str, Result] = field(repr=False)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.way}-way {self.shot}-shot"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the first run; the others differ in fold or seed alone."""
        return next(iter(self.runs.values())).settings

    @property
    def metric(self) -> str:
        """Name of the main figure."""
        return next(iter(self.runs.values())).score.name

    @property
    def over(self) -> str:
        """What the row averages, or the fold that it shows."""
        folds = {result.settings["fold"] for result in self.runs.values()}
        seeds = {result.settings["seed"] for result in self.runs.values()}
        fold = self.settings["fold"]
        told = f"mean of {len(folds)} folds" if len(folds) > 1 else "no folds" if fold is None else f"fold {fold}"
        return told + (f", {len(seeds)} seeds" if len(seeds) > 1 else "")

    @property
    def episodes(self) -> int:
        """Of all runs together."""
        return sum(len(result.rows) for result in self.runs.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before citing the figures, each warning once."""
        return tuple(dict.fromkeys(warning for result in self.runs.values() for warning in result.warnings))

    @cached_property
    def interval(self) -> Interval:
        """The main figure with its 95 % interval over episodes."""
        return bootstrap(*(result.score for result in self.runs.values()))

    @cached_property
    def pq_interval(self) -> Interval | None:
        """PQ with its 95 % interval over episodes; None of runs without instances."""
        scores = [result.pq_score for result in self.runs.values()]
        return bootstrap(*(score for score in scores if score)) if all(scores) else None

    def figure(self, name: str) -> float:
        """A figure of `Result`, or of its objects, averaged over the runs."""
        return float(np.mean([getattr(r.objects if name in OBJECT_FIGURES else r, name) for r in self.runs.values()]))

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of all figures that the runs have."""
        return FIGURES + (OBJECT_FIGURES if "instances" in self.settings else ())

    @cached_property
    def per_class(self) -> dict[str, float]:
        """{class: IoU}, averaged over the runs that have the class."""
        found: dict[str, list[float]] = {}
        for result in self.runs.values():
            for name, value in result.per_class.items():
                found.setdefault(name, []).append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def summary(self) -> dict[str, Any]:
        """The row for JSON."""
        return {
            "way": self.way,
            "shot": self.shot,
            "over": self.over,
            "runs": list(self.runs),
            "episodes": self.episodes,
            "metric": self.metric,
            "interval": plain([self.interval.low, self.interval.high]),
            **plain({name: self.figure(name) for name in self.figures}),
            **(plain({"pq_interval": [self.pq_interval.low, self.pq_interval.high]}) if self.pq_interval else {}),
            "per_class": plain(self.per_class),
            "remarks": list(self.warnings),
        }


def plan_runs(
    data: Callable[[int | None], Dataset],
    *,
    folds: Sequence[int | None] | Literal["all"] = (None,),
    protocol: str = "hsnet",
    ways: Sequence[int] = (),
    shots: Sequence[int] = (),
    count: int | None = None,
    seed: int | None = None,
    **options: bool,
) -> list[RunSpec]:
    """All runs, their episodes drawn before the first one starts, so that a wrong setting is known at once.

    data: gives the data set of a fold; None stands for all classes. folds: of the data set, or all that it has. ways,
    shots: every pair of them is run; without both it is 1-way 1-shot, and under protocol `seed` the pairs of the
    starting paper. seed: None runs the protocol's published seeds. options: as `draw_episodes` takes.
    Raises `SettingError` and `DatasetError`.
    """
    if folds == "all":
        whole = data(None)
        if not whole.folds:
            raise SettingError(f"{whole.name} has no folds; leave fold (--fold) out")
        folds = range(len(whole.folds))
    pairs = [(way, shot) for way in ways or (1,) for shot in shots or (1,)]
    if protocol == "seed" and not ways and not shots:
        pairs = list(SEED_PAIRS)
    seeds = PROTOCOLS[protocol].seeds if seed is None and protocol in PROTOCOLS else (seed or 0,)
    opened = {fold: data(fold) for fold in folds}
    specs = []
    for way, shot in pairs:
        for fold in folds:
            for number in seeds:
                episodes = draw_episodes(opened[fold], protocol, way, shot, count, number, **options)
                name = run_name(way, shot, fold) + (f"-seed{number}" if len(seeds) > 1 else "")
                specs.append(RunSpec(name, opened[fold], episodes))
    return specs


def read_run(data: Dataset, path: Path) -> RunSpec:
    """The run of an episodes.csv. Raises `DatasetError` and `SettingError`."""
    episodes = read_episodes(path, data)
    return RunSpec(run_name(episodes.settings.way, episodes.settings.shot, None), data, episodes)


def run_name(way: int, shot: int, fold: int | None) -> str:
    """The folder of a run, as in 1way-5shot-fold0."""
    return f"{way}way-{shot}shot" + ("" if fold is None else f"-fold{fold}")


def evaluate_runs(
    segmenter: Segmenter,
    specs: Sequence[RunSpec],
    out: Path,
    progress: Callable[[str], Progress | None] = lambda name: None,
    **options: Any,
) -> list[SummaryRow]:
    """Evaluate every run into a folder of its own under `out`. options: as `evaluate` takes."""
    _check_folder(out, {spec.name for spec in specs})
    results = {}
    for spec in specs:
        results[spec.name] = evaluate(
            segmenter,
            spec.data,
            episodes=spec.episodes,
            out=out / spec.name,
            progress=progress(spec.name),
            **options,
        )
    return summarise(results)


def summarise(results: Mapping[str, Result]) -> list[SummaryRow]:
    """Runs grouped by N and K."""
    groups: dict[tuple[int, int], dict[str, Result]] = {}
    for name, result in results.items():
        groups.setdefault((result.settings["way"], result.settings["shot"]), {})[name] = result
    return [SummaryRow(way, shot, runs) for (way, shot), runs in groups.items()]


def load_results(out: Path) -> dict[str, Result]:
    """{run: result} of a folder that `kshot eval` wrote, or of one run. Raises `SettingError`."""
    if (out / RUN).is_file():
        return {out.name: load_result(out)}
    if not (out / RESULTS).is_file():
        raise SettingError(f"{out}: holds no finished evaluation (no {RESULTS}); give a folder that `kshot eval` wrote")
    names = read_json_object(out / RESULTS).get("runs")
    if not isinstance(names, dict) or not names or not all(Path(name).name == name != ".." for name in names):
        raise damaged(out / RESULTS, "expected 'runs' by the names of their folders")
    return {name: load_result(out / name) for name in names}


def write_results(out: Path, rows: Sequence[SummaryRow], command: Sequence[str]) -> dict[str, Any]:
    """Write results.json and results.csv; returns what stands in the former. Raises `OutputError`."""
    facts = {
        "command": shlex.join(command),
        "versions": versions(),
        "table": [row.summary() for row in rows],
        "runs": {name: result.summary() for row in rows for name, result in row.runs.items()},
    }
    write_text(out / RESULTS, json.dumps(facts, indent=2) + "\n")
    write_text(out / TABLE, "".join(line + "\n" for line in _csv(rows)))
    return facts


def _csv(rows: Sequence[SummaryRow]) -> list[str]:
    columns = [
        "protocol",
        "dataset",
        "split",
        "way",
        "shot",
        "over",
        "episodes",
        "metric",
        "low",
        "high",
        *rows[0].figures,
        *(("pq_low", "pq_high") if rows[0].pq_interval else ()),
    ]
    lines = [",".join(columns)]
    for row in rows:
        words = [*(row.settings[key] for key in ("protocol", "dataset", "split")), row.way, row.shot]
        words += [row.over.replace(",", " and"), row.episodes, row.metric]
        numbers = [row.interval.low, row.interval.high, *(row.figure(name) for name in row.figures)]
        numbers += [row.pq_interval.low, row.pq_interval.high] if row.pq_interval else []
        lines.append(",".join([*map(str, words), *(f"{number:.6f}" for number in numbers)]))
    return lines


def _check_folder(out: Path, names: set[str]) -> None:
    """Refuse a folder that holds another command's runs, before anything is written."""
    other = sorted({path.parent.name for path in out.glob(f"*/{RUN}")} - names)
    if other:
        raise SettingError(f"{out}: holds other settings ({', '.join(other)}); choose another folder")
    theirs = [name for name in (RESULTS, TABLE, "report.html") if (out / name).exists()]
    if theirs and not any((out / name / RUN).exists() for name in names):
        raise SettingError(f"{out}: holds {', '.join(theirs)}, which no run made; choose another folder")
    if (out / MANIFEST).exists():
        raise SettingError(f"{out}: holds a labelling run; choose another folder")
