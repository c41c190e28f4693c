"""Run the episodes of a protocol: one process or many, killed and resumed, always the same integers.

Each process computes with one thread and encodes one image at a time, because the last bits of a floating-point sum
depend on how it was split; so the figures do not depend on the number of processes. Episode i belongs to process
i mod W, and rows go to files that merge in any order. Started by torchrun, each of its processes takes its share.
"""

import json
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot import __version__
from kshot.data.base import Dataset
from kshot.data.episodes import Episodes, episodes
from kshot.errors import KshotError, SettingError
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.result import Result
from kshot.evaluation.rows import RowFile, read_rows
from kshot.features import FeatureCache
from kshot.features.cache import MAX_BYTES
from kshot.formats.writing import write_text
from kshot.segmenter import Segmenter

log = logging.getLogger(__name__)
Progress = Callable[[int, int, float], None]
RUN = "run.json"
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class _Job:
    segmenter: Segmenter
    data: Dataset
    drawn: Episodes
    folder: Path
    cache: Path | None
    cache_bytes: int
    score_size: int | None


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
    """Evaluate on the episodes of a protocol (`kshot.data.episodes.PROTOCOLS`).

    episodes: how many (default: the protocol's own), or an `Episodes`, such as one read from a CSV. score_size: score
    at this square size instead of the query's own. drop_small: leave out classes with too few images, and say so.
    workers: processes. cache: folder of features, shared by runs. out: folder of the run; a run that was stopped
    there goes on. progress: called with episodes done, episodes in all, and the mIoU so far.
    Raises `SettingError` (also when `out` holds another run), `DatasetError` and `OutputError`.
    """
    if isinstance(episodes, Episodes):
        drawn = episodes
    else:
        drawn = _draw(data, protocol, way, shot, episodes, seed, allow_repeats, drop_small)
    with tempfile.TemporaryDirectory(prefix="kshot-eval-") as temporary:
        folder = Path(out) if out is not None else Path(temporary)
        job = _Job(segmenter, data, drawn, folder, Path(cache) if cache else None, cache_bytes, score_size)
        run = _open(job)
        if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            _work(job, rank, world, None)
            _wait(job, lambda: True, progress)
        elif workers > 1:
            _spawn(job, workers, progress)
        else:
            _work(job, 0, 1, progress)
        return _result(run, folder, len(drawn))


def load_result(folder: str | Path) -> Result:
    """The result of a run folder. Raises `SettingError` when it holds none, or an unfinished one."""
    path = Path(folder) / RUN
    if not path.is_file():
        raise SettingError(f"{folder}: holds no run (no {RUN}); give a folder that `kshot eval` wrote")
    run = json.loads(path.read_text(encoding="utf-8"))
    return _result(run, Path(folder), int(run["settings"]["episodes"]))


def _draw(
    data: Dataset, protocol: str, way: int, shot: int, count: int | None, seed: int, repeats: bool, drop: bool
) -> Episodes:
    return episodes(data, protocol, way, shot, count, seed, allow_repeats=repeats, drop_small=drop)


def _open(job: _Job) -> dict[str, Any]:
    """Write down what the run is, or check that the folder's run is the same."""
    plan, classes = asdict(job.drawn.plan), _classes(job)
    run: dict[str, Any] = {
        "settings": {"protocol": plan["protocol"], **_settings(job), **plan, "episodes": len(job.drawn)},
        "names": job.data.classes,
        "classes": classes,
        "remarks": [*job.drawn.dropped, *job.data.shortfalls(job.data)],
        "versions": {"kshot": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    run = json.loads(json.dumps(run))
    path = job.folder / RUN
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = [key for key in run["settings"] if run["settings"][key] != before.get("settings", {}).get(key)]
        if differ:
            raise SettingError(
                f"{job.folder}: holds a run with other settings ({', '.join(differ)}); choose another folder"
            )
    else:
        job.drawn.write(job.folder / "episodes.csv")
        write_text(path, json.dumps(run, indent=2) + "\n")
    return run


def _classes(job: _Job) -> list[int]:
    """The classes that the figure is a mean of: those that an episode can ask for."""
    return sorted({class_id for episode in job.drawn for class_id in episode.classes})


def _settings(job: _Job) -> dict[str, Any]:
    segmenter = job.segmenter
    return {
        "backbone": asdict(segmenter.origin),
        "dtype": str(segmenter.backbone.dtype).removeprefix("torch."),
        "method": segmenter.method.__name__.rpartition(".")[2],
        "method_settings": asdict(segmenter.settings),
        "refiner": segmenter.refiner.__name__.rpartition(".")[2],
        "refiner_settings": asdict(segmenter.refiner_settings),
        "resolution": "the query's own" if job.score_size is None else f"{job.score_size} x {job.score_size}",
        "ignored": "255, left out of intersection and union",
        "data": str(job.data.root),
    }


def _work(job: _Job, rank: int, world: int, progress: Progress | None) -> None:
    """Process `rank` of `world`: its share of the images to encode, then its share of the episodes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runner = EpisodeRunner(job.segmenter, job.data, FeatureCache(job.cache, job.cache_bytes), job.score_size)
        file, done = RowFile(job.folder, rank, world), read_rows(job.folder)
        mine = [i for i in range(len(job.drawn)) if i % world == rank and i not in done]
        if world > 1 and job.cache and mine:
            _encode_share(job, runner, rank, world)
        counts = _Running(job, list(done.values()))
        for index in mine:
            before = runner.forwards if index != mine[0] else 0
            row = runner.run(job.drawn[index])
            row["encoded"] = runner.forwards - before
            file.append([row])
            counts.add(row)
            if progress:
                progress(counts.done, len(job.drawn), counts.miou)
    finally:
        torch.set_num_threads(threads)


def _encode_share(job: _Job, runner: EpisodeRunner, rank: int, world: int) -> None:
    """Fill the cache together, so that no two processes encode the same image."""
    images = sorted({image for e in job.drawn for image in (e.query, *(i for way in e.supports for i in way))})
    for image in images[rank::world]:
        runner.features(image)


def _spawn(job: _Job, workers: int, progress: Progress | None) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(job, rank, workers, None)) for rank in range(workers)]
    for process in processes:
        process.start()
    try:
        _wait(job, lambda: any(process.is_alive() for process in processes), progress)
    finally:
        for process in processes:
            if process.is_alive() and len(read_rows(job.folder)) < len(job.drawn):
                process.terminate()
            process.join()
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed and len(read_rows(job.folder)) < len(job.drawn):
        raise KshotError(f"a worker process ended with code {failed[0]}; its error stands above")


def _wait(job: _Job, alive: Callable[[], bool], progress: Progress | None) -> None:
    """Until every episode has its row, or nobody is left to write one."""
    while True:
        working = alive()
        rows = read_rows(job.folder)
        if progress and rows:
            progress(len(rows), len(job.drawn), _Running(job, list(rows.values())).miou)
        if len(rows) >= len(job.drawn) or not working:
            return
        time.sleep(_POLL_SECONDS)


class _Running:
    """Sums of intersections and unions per class so far."""

    def __init__(self, job: _Job, rows: list[dict[str, Any]]):
        self.way = job.drawn.plan.way
        self.shared: dict[int, int] = {}
        self.union: dict[int, int] = {}
        self.done = 0
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Add one row."""
        table, way = row["table"], self.way
        shared, predicted, truth = (table[1 + way + k * (way + 1) :][: way + 1] for k in range(3))
        for n, class_id in enumerate(table[1 : 1 + way], 1):
            self.shared[class_id] = self.shared.get(class_id, 0) + shared[n]
            self.union[class_id] = self.union.get(class_id, 0) + predicted[n] + truth[n] - shared[n]
        self.done += 1

    @property
    def miou(self) -> float:
        """Mean over the classes met so far."""
        ratios = [self.shared[c] / union for c, union in self.union.items() if union]
        return sum(ratios) / len(ratios) if ratios else 0.0


def _result(run: dict[str, Any], folder: Path, expected: int) -> Result:
    rows = read_rows(folder)
    if len(rows) < expected:
        raise SettingError(f"{folder}: {len(rows)} of {expected} episodes are done; run the same command to go on")
    ordered = tuple(rows[index] for index in sorted(rows)[:expected])
    return Result(
        ordered,
        tuple(run["names"]),
        tuple(run["classes"]),
        run["settings"],
        tuple(run["remarks"]),
        sum(row.get("encoded", 0) for row in ordered),
    )
