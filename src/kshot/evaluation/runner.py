"""Run the episodes of a protocol into a folder, resume what is there, and read it back."""

import json
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot._version import __version__
from kshot.data.base import Dataset
from kshot.episodes.csv import write_episodes
from kshot.episodes.sampler import Episodes, draw_episodes
from kshot.errors import SettingError
from kshot.evaluation.records import read_rows
from kshot.evaluation.result import Result
from kshot.evaluation.workers import Job, Progress, place_in_world, run_job
from kshot.features.cache import MAX_BYTES
from kshot.io.atomic import write_text
from kshot.io.tensor_file import Learned, read_learned
from kshot.segmenter import Segmenter

RUN, EPISODES = "run.json", "episodes.csv"


def evaluate(
    segmenter: Segmenter,
    data: Dataset,
    *,
    way: int = 1,
    shot: int = 1,
    episodes: int | Episodes | None = None,
    seed: int = 0,
    protocol: str = "hsnet",
    score_size: int | None = None,
    allow_repeats: bool = False,
    drop_small: bool = False,
    workers: int = 1,
    cache: str | Path | None = None,
    cache_bytes: int = MAX_BYTES,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Evaluate on the episodes of a protocol (`kshot.episodes.protocols.PROTOCOLS`).

    episodes: how many (default: the protocol's own), or an `Episodes`, such as one read from a CSV. score_size: score
    at this square size instead of the query's own. drop_small: leave out classes with too few images, and say so.
    workers: processes. cache: folder of features, shared by runs. out: folder of the run; a run that was stopped
    there goes on, one that is done is read. progress: called with episodes done, episodes in all, and the mIoU so far.
    Raises `SettingError` (also when `out` holds another run), `DatasetError` and `OutputError`.
    """
    if isinstance(episodes, Episodes):
        drawn = episodes
    else:
        how = {"allow_repeats": allow_repeats, "drop_small": drop_small}
        drawn = draw_episodes(data, protocol, way, shot, episodes, seed, **how)
    if out is None and place_in_world()[1] > 1:
        raise SettingError("several processes meet in the folder of the run: name one (out)")
    with tempfile.TemporaryDirectory(prefix="kshot-eval-") as temporary:
        folder = Path(out) if out is not None else Path(temporary)
        job = Job(segmenter, data, drawn, folder, Path(cache) if cache else None, cache_bytes, score_size)
        run = _open(job)
        forwards = run_job(job, workers, progress)
        return _result(run, folder, len(drawn), forwards)


def load_result(folder: str | Path) -> Result:
    """The result of a run folder. Raises `SettingError` when it holds none, or an unfinished one."""
    path = Path(folder) / RUN
    if not path.is_file():
        raise SettingError(f"{folder}: holds no run (no {RUN}); give a folder that `kshot eval` wrote")
    run = json.loads(path.read_text(encoding="utf-8"))
    return _result(run, Path(folder), int(run["settings"]["episodes"]), 0)


def versions() -> dict[str, str]:
    """What the figures were computed with."""
    found = {"kshot": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return found | {"python": platform.python_version(), "machine": platform.machine()}


def _open(job: Job) -> dict[str, Any]:
    """Write down what the run is, or check that the folder's run is the same."""
    run: dict[str, Any] = json.loads(json.dumps(_described(job)))
    path = job.folder / RUN
    if path.exists():
        differ = _differences(run, json.loads(path.read_text(encoding="utf-8")))
        if differ:
            raise SettingError(
                f"{job.folder}: holds a run with other settings ({', '.join(differ)}); choose another folder"
            )
    else:
        write_episodes(job.folder / EPISODES, job.drawn)
        write_text(path, json.dumps(run, indent=2) + "\n")
    return run


def _described(job: Job) -> dict[str, Any]:
    segmenter, plan = job.segmenter, asdict(job.drawn.settings)
    settings = {
        "protocol": plan["protocol"],
        "backbone": asdict(segmenter.origin),
        "dtype": str(segmenter.backbone.dtype).removeprefix("torch."),
        "method": segmenter.method.__name__.rpartition(".")[2],
        "method_settings": asdict(segmenter.settings),
        "refiner": segmenter.refiner.__name__.rpartition(".")[2],
        "refiner_settings": asdict(segmenter.refiner_settings),
        "resolution": "the query's own" if job.score_size is None else f"{job.score_size} x {job.score_size}",
        "ignored": "255, left out of intersection and union",
        **plan,
        "episodes": len(job.drawn),
    }
    learned = _learned(segmenter)
    if learned is not None:  # other weights in the same place make another run
        settings["learned"] = learned.digest
    return {
        "settings": settings,
        "root": str(job.data.root),
        "names": job.data.classes,
        # The classes that the figure is a mean of: those that an episode asks for.
        "classes": sorted({class_id for episode in job.drawn for class_id in episode.classes}),
        "remarks": _remarks(job),
        "versions": versions(),
    }


def _remarks(job: Job) -> list[str]:
    """What a reader must know before citing the figure."""
    data, plan = job.data, job.drawn.settings
    told = [f"left out: {'; '.join(job.drawn.dropped)}"] if job.drawn.dropped else []
    told += [f"missing: {problem}" for problem in data.problems] + list(data.shortfalls(data))
    learned = _learned(job.segmenter)
    if learned is not None:
        asked = {data.classes[class_id - 1] for episode in job.drawn for class_id in episode.classes}
        known = sorted(asked & set(learned.facts.get("base", ())))
        told += [f"not novel: the weights were learned on {', '.join(known)}"] if known else []
    if data.folds and plan.fold is None and plan.protocol != "seed":
        told.append(f"all classes in one pool; the published figures are means over {len(data.folds)} folds (fold all)")
    return told


def _learned(segmenter: Segmenter) -> Learned | None:
    place: str = getattr(segmenter.settings, "weights", "")
    return read_learned(place) if place else None


def _differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Settings on which two runs disagree; the same weights and data may lie in another place."""

    def facts(run: dict[str, Any]) -> dict[str, Any]:
        settings = dict(run.get("settings", {}))
        settings["backbone"] = settings.get("backbone", {}) | {"backbone": ""}
        return settings | {"kshot version": run.get("versions", {}).get("kshot")}

    mine, theirs = facts(one), facts(two)
    return [key for key in mine | theirs if mine.get(key) != theirs.get(key)]


def _result(run: dict[str, Any], folder: Path, expected: int, forwards: int) -> Result:
    rows = read_rows(folder)
    missing = sum(index not in rows for index in range(expected))
    if missing:
        raise SettingError(f"{folder}: {missing} of {expected} episodes are not done; run the same command to go on")
    ordered = tuple(rows[index] for index in range(expected))
    return Result(ordered, tuple(run["names"]), tuple(run["classes"]), run["settings"], tuple(run["remarks"]), forwards)
