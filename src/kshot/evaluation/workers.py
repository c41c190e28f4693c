"""The processes of a run: each takes its share of the episodes, and what they write merges in any order.

Each computes with one thread and encodes one image at a time, because the last bits of a floating-point sum depend
on how it was split; so the figures do not depend on the number of processes. Episode i belongs to process i mod W.
Started by torchrun, each of its processes takes its share; when one dies, torchrun ends the others.
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot.data.base import Dataset
from kshot.episodes.protocols import PROTOCOLS
from kshot.episodes.sampler import Episodes
from kshot.errors import KshotError
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.records import Row, RowReader, RowRules, read_rows, row_file
from kshot.features import FeatureCache
from kshot.metrics import EpisodeCounts
from kshot.metrics.scores import mean_of_ratios
from kshot.ops.processor import core_count
from kshot.segmenter import Segmenter

Progress = Callable[[int, int, float], None]
_POLL_SECONDS = 0.5
_WORTH_A_PROCESS = 24  # episodes; fewer are done before another process has started


@dataclass(frozen=True)
class EvaluationJob:
    """Everything that a process needs to know."""

    segmenter: Segmenter
    data: Dataset
    episodes: Episodes
    folder: Path
    """Where the run's rows are written."""
    cache: Path | None
    """Folder of features; None keeps them in memory only."""
    cache_bytes: int
    """Bound of that folder."""
    score_size: int | None
    """Side of the square at which masks are scored, in pixels; None is the query's own size."""
    instances: str | None = None
    """How masks are taken apart, where objects are compared too; see `EpisodeRunner`."""

    @cached_property
    def rules(self) -> RowRules:
        """What a row of the run has to be."""
        classes = frozenset(class_id for episode in self.episodes for class_id in episode.classes)
        sizes = self.segmenter.sizes if self.segmenter.chooses_size else ()
        return RowRules(len(self.episodes), self.episodes.settings.way, classes, self.instances is not None, sizes)

    def runner(self) -> EpisodeRunner:
        """Who runs the episodes."""
        rule = PROTOCOLS.get(self.episodes.settings.protocol)
        return EpisodeRunner(
            self.segmenter,
            self.data,
            FeatureCache(self.cache, self.cache_bytes),
            self.score_size,
            always_present=rule is not None and rule.always_present,
            instances=self.instances,
        )


def rank_and_world_size() -> tuple[int, int]:
    """This process's number among those that torchrun started, and how many there are; (0, 1) without torchrun."""
    if "RANK" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", "1"))


def worker_count(segmenter: Segmenter, wanted: int | None) -> int:
    """How many processes a run takes: `wanted`, by default one for each core that this process may use.

    Processes that share one accelerator gain nothing and hold the model once each, so there it is one.
    """
    if not str(segmenter.backbone.device).startswith("cpu"):
        return 1
    return wanted or core_count()


def run_job(job: EvaluationJob, workers: int, progress: Progress | None) -> int:
    """Run the episodes that have no row yet. Returns how many images were encoded (under torchrun, here)."""
    rank, world = rank_and_world_size()
    if world > 1:
        forwards = _work(job, rank, world, None)
        _wait(job, lambda: True, progress)
        return forwards
    missing = len(job.episodes) - len(read_rows(job.folder, job.rules))
    if missing <= 0:
        return 0
    workers = min(workers, -(-missing // _WORTH_A_PROCESS))
    return _spawn(job, workers, progress) if workers > 1 else _work(job, 0, 1, progress)


def _work(
    job: EvaluationJob,
    rank: int,
    world: int,
    progress: Progress | None,
    meet: Callable[[], object] = lambda: None,
) -> int:
    """Process `rank` of `world`: its share of the images to encode, then its share of the episodes.

    meet: returns when all processes have called it, so that no image is encoded by two of them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if rank > 0:  # a cache that cannot be written is said once, by the first
        logging.getLogger("kshot.features.cache").setLevel(logging.ERROR)
    try:
        runner, file, done = job.runner(), row_file(job.folder, rank, world), read_rows(job.folder, job.rules)
        if world > 1 and job.cache:
            _encode_share(job, runner, rank, world, done)
            meet()
        running = _RunningMiou(job, done.values())
        for index in range(rank, len(job.episodes), world):
            if index in done:
                continue
            row = runner.run(job.episodes[index])
            file.append(row)
            running.add([row])
            if progress:
                progress(running.done, len(job.episodes), running.miou)
        return runner.forwards
    finally:
        torch.set_num_threads(threads)


def _encode_share(job: EvaluationJob, runner: EpisodeRunner, rank: int, world: int, done: Container[int]) -> None:
    """Fill the cache together with what the episodes without a row need."""
    missing = [episode for episode in job.episodes if episode.index not in done]
    images = sorted({e.query for e in missing} | {image for e in missing for way in e.supports for image in way})
    for image in images[rank::world]:
        runner.features(image)
        if not runner.cache.writable:
            return


def _spawn(job: EvaluationJob, workers: int, progress: Progress | None) -> int:
    """Run the job in processes of their own. Raises `KshotError` when one fails."""
    context = multiprocessing.get_context("spawn")
    counts, encoded = [context.Value("q", 0) for _ in range(workers)], context.Barrier(workers)
    processes = [context.Process(target=_share, args=(job, n, workers, counts[n], encoded)) for n in range(workers)]
    for process in processes:
        process.start()
    try:
        _wait(job, lambda: any(p.is_alive() for p in processes) and not any(p.exitcode for p in processes), progress)
        failed = [p.exitcode for p in processes if p.exitcode]
        if failed:
            raise KshotError(f"a worker process ended with code {failed[0]}; its error stands above")
        for process in processes:
            process.join()
        return sum(count.value for count in counts)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _share(job: EvaluationJob, rank: int, world: int, count: Any, encoded: Any) -> None:
    count.value = _work(job, rank, world, None, encoded.wait)


def _wait(job: EvaluationJob, alive: Callable[[], bool], progress: Progress | None) -> None:
    """Until every episode has its row, or nobody is left to write one."""
    reader, running = RowReader(job.folder, job.rules), _RunningMiou(job)
    while True:
        working = alive()
        fresh = reader.read()
        running.add(fresh)
        if progress and fresh:
            progress(running.done, len(job.episodes), running.miou)
        if len(reader.rows) >= len(job.episodes) or not working:
            return
        time.sleep(_POLL_SECONDS)


class _RunningMiou:
    """The mean IoU over the classes met so far, for the progress bar."""

    def __init__(self, job: EvaluationJob, rows: Iterable[Row] = ()):
        self.way, self.done = job.episodes.settings.way, 0
        self.sums = np.zeros((2, len(job.data.classes) + 1), np.int64)  # intersection and union by class
        self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            found = EpisodeCounts.from_table(np.array([row["table"]]), self.way)
            self.sums[:, found.classes[0]] += [found.counts.intersection[0, 1:], found.counts.union[0, 1:]]
            self.done += 1

    @property
    def miou(self) -> float:
        return float(np.nan_to_num(mean_of_ratios(*self.sums)))
