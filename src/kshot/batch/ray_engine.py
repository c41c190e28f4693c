"""The steps of a folder run on a Ray cluster: batches of jobs go to actors that hold the model, records come back.

An actor reads, infers and writes its images itself, so that between machines go names and lines of the manifest alone:
the scores of an image are far larger than its file. Hence all machines must see the images and the output folder under
the same paths. The one that started the run keeps the lock, the manifest and the order, as in a local run.
Needs the extra `ray`. Source: Moritz et al. 2018, "Ray: a distributed framework for emerging AI applications".
"""

import importlib
import json
import logging
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kshot.batch.inputs import Job
from kshot.batch.pipeline import overlapped
from kshot.batch.stages import Steps, Work
from kshot.errors import OutputError, SettingError

_LARGEST = 32  # images of a batch; results come back, and are lost to a kill, by batches
_BATCHES = 4  # for each actor at least, so that all end at about the same time


def on_ray(jobs: Iterable[Job | None], steps: Steps, workers: int) -> Generator[Work]:
    """What `Steps` makes of each job, in the order in which batches end.

    workers: actors, each with a CPU (or a GPU, when the model is on one); 0 takes what the cluster has. RAY_ADDRESS
    names the cluster; without it one is started on this machine, for this run. An actor that dies is started again.
    Frames of videos are done by who started the run.
    Raises `SettingError` without Ray or where no cluster answers, and `OutputError` when nothing can be written.
    """
    todo = []
    for job in jobs:
        if job and (job.frame is not None or job.problem):  # a decoded frame is no message; here it is done at once
            yield from overlapped([job], steps.read, steps.infer, steps.write, 0)
        elif job:
            todo.append(replace(job, path=job.path.absolute()))
    if not todo:
        return
    ray = load()
    ours = _connect(ray, workers)
    try:
        yield from _works(_rows(ray, todo, steps, workers))
    except (ray.exceptions.RayError, ray.exceptions.UserCodeException) as error:
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise OutputError(f"the run on Ray ended: {reason}") from error
    finally:
        if ours:
            ray.shutdown()


class _Labeller:
    """An actor: holds the steps, and with them the model, and does batches of jobs."""

    def __init__(self, steps: Steps):
        self.steps = steps

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        """A row for each job: its record and seconds as JSON, or why nothing can be written any more."""
        columns = map(list, zip(*self._done(batch["job"]), strict=True))
        yield dict(zip(("job", "record", "seconds", "error"), columns, strict=True))

    def _done(self, jobs: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
        steps = self.steps
        try:
            for work in overlapped(map(_unpacked, jobs), steps.read, steps.infer, steps.write):
                yield _packed(work.job), json.dumps(work.record), json.dumps(work.seconds), ""
        except OutputError as error:
            yield "", "", "", str(error)


def _works(rows: Iterable[dict[str, Any]]) -> Iterator[Work]:
    for row in rows:
        if row["error"]:
            raise OutputError(row["error"])
        yield Work(_unpacked(row["job"]), json.loads(row["record"]), json.loads(row["seconds"]))


def _rows(ray: Any, jobs: Sequence[Job], steps: Steps, workers: int) -> Iterator[dict[str, Any]]:
    each = "GPU" if steps.on_gpu else "CPU"
    actors = workers or max(1, int(ray.cluster_resources().get(each, 1)))
    size = min(_LARGEST, -(-len(jobs) // (_BATCHES * actors)))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Its plans and progress would stand among kshot's own words on stderr.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # JSON, because a name that is no Unicode passes through it, and not through Arrow.
    rows = ray.data.from_items([{"job": _packed(job)} for job in jobs], override_num_blocks=-(-len(jobs) // size))
    done = rows.map_batches(
        _Labeller,
        batch_size=size,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(jobs))),
        fn_constructor_args=(steps,),
        **{f"num_{each.lower()}s": 1},
    )
    found: Iterator[dict[str, Any]] = done.iter_rows()
    return found


def _packed(job: Job) -> str:
    return json.dumps([job.name, str(job.path), job.stem, job.page])


def _unpacked(text: str) -> Job:
    name, path, stem, page = json.loads(text)
    return Job(name, Path(path), stem, page)


def load() -> Any:
    """Ray, with Ray Data in it. Raises `SettingError` with the way to get it."""
    # A tool that labels private images tells nobody of it, unless somebody wants that.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise SettingError(f"the engine ray needs Ray Data ({error}); pip install 'kshot[ray]'") from error
    return ray


def _connect(ray: Any, workers: int) -> bool:
    """Join the cluster of RAY_ADDRESS, or start one here; whether it is ours to shut down."""
    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            # Ray would let its workers yield to all else, and hardly move on a machine with other work.
            os.environ.setdefault("RAY_worker_niceness", "0")
            count = max(workers, os.cpu_count() or 1)
            ray.init("local", num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"RAY_ADDRESS={address}" if address else "Ray on this machine"
        raise SettingError(f"{where}: no cluster answers ({error}); see `ray status`, `ray start --head`") from error
    return True
