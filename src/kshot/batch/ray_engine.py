"""The stages of a folder run on a Ray cluster: batches of images go to actors that hold the model, records come back.

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

from kshot.batch.inputs import Input
from kshot.batch.stages import ImageResult, Stages, overlapped
from kshot.errors import OutputError, SettingError

_LARGEST = 32  # images of a batch; results come back, and are lost to a kill, by batches
_BATCHES = 4  # for each actor at least, so that all end at about the same time


def on_ray(inputs: Iterable[Input | None], stages: Stages, workers: int | None) -> Generator[ImageResult]:
    """What `Stages` makes of each image, in the order in which batches end.

    workers: actors, each with a CPU (or a GPU, when the model is on one); None and 0 take what the cluster has.
    RAY_ADDRESS names the cluster; without it one is started on this machine, for this run. An actor that dies is
    started again.
    Frames of videos are processed by the process that started the run, not by actors.
    Raises `SettingError` without Ray or where no cluster answers, and `OutputError` when nothing can be written.
    """
    todo = []
    for source in inputs:
        if source and (source.frame is not None or source.problem):  # a decoded frame is no message: it is done here
            yield stages.write(stages.infer(stages.read(source)))
        elif source:
            todo.append(replace(source, path=source.path.absolute()))
    if not todo:
        return
    ray = load()
    ours = _connect(ray, workers or 0)
    try:
        yield from _results(_rows(ray, todo, stages, workers or 0))
    except (ray.exceptions.RayError, ray.exceptions.UserCodeException) as error:
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise OutputError(f"the run on Ray ended: {reason}") from error
    finally:
        if ours:
            ray.shutdown()


class _Labeller:
    """An actor: holds the stages, and with them the model, and does batches of images."""

    def __init__(self, stages: Stages):
        self.stages = stages

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        """A row for each image: its record and seconds as JSON, or why nothing can be written any more."""
        columns = map(list, zip(*self._done(batch["input"]), strict=True))
        yield dict(zip(("input", "record", "seconds", "error"), columns, strict=True))

    def _done(self, inputs: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
        stages = self.stages
        try:
            for result in overlapped(map(_unpacked, inputs), stages.read, stages.infer, stages.write):
                yield _packed(result.source), json.dumps(result.record), json.dumps(result.seconds), ""
        except OutputError as error:
            yield "", "", "", str(error)


def _results(rows: Iterable[dict[str, Any]]) -> Iterator[ImageResult]:
    for row in rows:
        if row["error"]:
            raise OutputError(row["error"])
        yield ImageResult(_unpacked(row["input"]), json.loads(row["record"]), json.loads(row["seconds"]))


def _rows(ray: Any, inputs: Sequence[Input], stages: Stages, workers: int) -> Iterator[dict[str, Any]]:
    each = "GPU" if stages.on_gpu else "CPU"
    actors = workers or max(1, int(ray.cluster_resources().get(each, 1)))
    size = min(_LARGEST, -(-len(inputs) // (_BATCHES * actors)))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Its plans and progress would stand among kshot's own words on stderr.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # JSON, because a name that is no Unicode passes through it, and not through Arrow.
    rows = ray.data.from_items(
        [{"input": _packed(source)} for source in inputs], override_num_blocks=-(-len(inputs) // size)
    )
    done = rows.map_batches(
        _Labeller,
        batch_size=size,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(inputs))),
        fn_constructor_args=(stages,),
        **{f"num_{each.lower()}s": 1},
    )
    found: Iterator[dict[str, Any]] = done.iter_rows()
    return found


def _packed(source: Input) -> str:
    return json.dumps([source.name, str(source.path), source.stem, source.page])


def _unpacked(text: str) -> Input:
    name, path, stem, page = json.loads(text)
    return Input(name, Path(path), stem, page)


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
