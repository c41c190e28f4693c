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
from pathlib import Path
from typing import Any

import torch

from kshot.data.base import Dataset
from kshot.episodes.sampler import Episodes
from kshot.errors import KshotError
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.records import Row, Watch, read_rows, row_file
from kshot.features import FeatureCache
from kshot.segmenter import Segmenter

Progress = Callable[[int, int, float], None]
_POLL_SECONDS = 0.5
_WORTH_A_PROCESS = 24  # episodes; fewer are done before another process has started


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to know."""

    segmenter: Segmenter
    data: Dataset
    drawn: Episodes
    folder: Path
    cache: Path | None
    cache_bytes: int
    score_size: int | None

    def runner(self) -> EpisodeRunner:
        """Who runs the episodes."""
        return EpisodeRunner(self.segmenter, self.data, FeatureCache(self.cache, self.cache_bytes), self.score_size)


def place_in_world() -> tuple[int, int]:
    """This process's number among those that torchrun started, and how many there are."""
    if "RANK" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", "1"))


def run_job(job: Job, workers: int, progress: Progress | None) -> int:
    """Do the episodes that have no row yet. Returns how many images were encoded (under torchrun, here)."""
    rank, world = place_in_world()
    missing = len(job.drawn) - len(read_rows(job.folder))
    if world > 1:
        forwards = _work(job, rank, world, None)
        _wait(job, lambda: True, progress)
        return forwards
    if missing <= 0:
        return 0
    workers = min(workers, -(-missing // _WORTH_A_PROCESS))
    return _spawn(job, workers, progress) if workers > 1 else _work(job, 0, 1, progress)


def _work(job: Job, rank: int, world: int, progress: Progress | None, meet: Callable[[], object] = lambda: None) -> int:
    """Process `rank` of `world`: its share of the images to encode, then its share of the episodes.

    meet: returns when all processes have called it, so that no image is encoded by two of them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if rank > 0:  # a cache that cannot be written is said once, by the first
        logging.getLogger("kshot.features.cache").setLevel(logging.ERROR)
    try:
        runner, file, done = job.runner(), row_file(job.folder, rank, world), read_rows(job.folder)
        mine = [i for i in range(len(job.drawn)) if i % world == rank and i not in done]
        if world > 1 and job.cache:
            _encode_share(job, runner, rank, world, done)
            meet()
        running = Running(job.drawn.settings.way, done.values())
        for index in mine:
            row = runner.run(job.drawn[index])
            file.append(row)
            running.add([row])
            if progress:
                progress(running.done, len(job.drawn), running.miou)
        return runner.forwards
    finally:
        torch.set_num_threads(threads)


def _encode_share(job: Job, runner: EpisodeRunner, rank: int, world: int, done: Container[int]) -> None:
    """Fill the cache together with what the episodes without a row need."""
    missing = [episode for episode in job.drawn if episode.index not in done]
    queries = {e.query for e in missing}
    images = sorted(queries | {image for e in missing for way in e.supports for image in way})
    for image in images[rank::world]:
        if image in queries:
            runner.query(image)  # and its own features, which it is also a support with
        else:
            runner.features(image)
        if not runner.cache.writable:
            return


def _spawn(job: Job, workers: int, progress: Progress | None) -> int:
    context = multiprocessing.get_context("spawn")
    counts, encoded = [context.Value("q", 0) for _ in range(workers)], context.Barrier(workers)
    processes = [context.Process(target=_share, args=(job, n, workers, counts[n], encoded)) for n in range(workers)]
    for process in processes:
        process.start()
    try:
        _wait(job, lambda: any(p.is_alive() for p in processes) and not any(p.exitcode for p in processes), progress)
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        failed = [p.exitcode for p in processes if p.exitcode]
        for process in processes:
            if failed:
                process.terminate()
            process.join()
    if failed:
        raise KshotError(f"a worker process ended with code {failed[0]}; its error stands above")
    return sum(count.value for count in counts)


def _share(job: Job, rank: int, world: int, count: Any, encoded: Any) -> None:
    count.value = _work(job, rank, world, None, encoded.wait)


def _wait(job: Job, alive: Callable[[], bool], progress: Progress | None) -> None:
    """Until every episode has its row, or nobody is left to write one."""
    watch, running = Watch(job.folder), Running(job.drawn.settings.way)
    while True:
        working = alive()
        fresh = watch.look()
        running.add(fresh)
        if progress and fresh:
            progress(running.done, len(job.drawn), running.miou)
        if len(watch.rows) >= len(job.drawn) or not working:
            return
        time.sleep(_POLL_SECONDS)


class Running:
    """Intersections and unions per class so far, for the progress bar."""

    def __init__(self, way: int, rows: Iterable[Row] = ()):
        self.way, self.done = way, 0
        self.shared: dict[int, int] = {}
        self.union: dict[int, int] = {}
        self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        for row in rows:
            table, labels = row["table"], self.way + 1
            shared, predicted, truth = (table[labels * (k + 1) :][:labels] for k in range(3))
            for n, class_id in enumerate(table[1:labels], 1):
                self.shared[class_id] = self.shared.get(class_id, 0) + shared[n]
                self.union[class_id] = self.union.get(class_id, 0) + predicted[n] + truth[n] - shared[n]
            self.done += 1

    @property
    def miou(self) -> float:
        """Mean over the classes met so far."""
        ratios = [self.shared[c] / union for c, union in self.union.items() if union]
        return sum(ratios) / len(ratios) if ratios else 0.0
