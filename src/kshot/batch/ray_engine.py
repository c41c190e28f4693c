"""The stages of a folder run on a Ray cluster: batches of images go to actors that hold the model, records come back.

An actor reads, infers and writes its images itself, so that between machines go names and lines of the manifest alone:
the scores of an image are far larger than its file. Hence all machines must see the images and the output folder under
the same paths, which an actor checks before it writes anything. Nothing else of a disk is shared: the model comes with
the job, and the variables KSHOT_* hold on all machines as on the first one. The one that started the run keeps the
lock, the manifest and the order, as in a local run.
Needs the extra `ray`. Source: Moritz et al. 2018, "Ray: a distributed framework for emerging AI applications".
"""

import importlib
import logging
import os
import pickle
import platform
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kshot._version import __version__
from kshot.batch.inputs import Input
from kshot.batch.stages import ImageResult, Stages, overlapped
from kshot.errors import KshotError, OutputError, SettingError
from kshot.io.manifest import FAILED, SETTINGS

log = logging.getLogger(__name__)
_LARGEST = 32  # images of a batch; results come back, and are lost to a kill, by batches
_BATCHES = 4  # for each actor at least, so that all end at about the same time
_MOST_DEATHS = 3  # of actors at one image alone, or of all that start before one does


def on_ray(inputs: Iterable[Input | None], stages: Stages, workers: int | None) -> Generator[ImageResult]:
    """What `Stages` makes of each image, in the order in which batches end.

    workers: actors, each with a CPU (or a GPU, when the model is on one); None and 0 take what the cluster has.
    RAY_ADDRESS names the cluster; without it one is started on this machine, for this run. Where an actor dies, or its
    machine, another one is started and its batch is done again, in halves; an image at which actors die again and
    again becomes a failed one.
    Frames of videos are processed by the process that started the run, not by actors.
    Raises `SettingError` without Ray, where no cluster answers, or where a machine of it lacks the output folder, a
    folder of images or this kshot, and `OutputError` when nothing can be written.
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
        yield from _spread(ray, todo, stages, workers or 0)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, KshotError):
            raise error.cause from error
        raise OutputError(f"the run on Ray ended: {type(error.cause).__name__}: {error.cause}") from error
    except ray.exceptions.RayError as error:
        raise OutputError(f"the run on Ray ended: {_last_line(error)}") from error
    finally:
        if ours:
            ray.shutdown()


class _Labeller:
    """An actor: holds the stages, and with them the model, and does batches of images."""

    def __init__(self, packed: Sequence[Any], settings: bytes, environment: Mapping[str, str]):
        self.packed, self.settings, self.environment = packed, settings, environment

    def start(self, version: str) -> str:
        """Load the model; returns where. Raises `SettingError` where this machine cannot."""
        if version != __version__:
            raise SettingError(
                f"{platform.node()} has kshot {__version__}, and this run is of {version}; install that there"
            )
        os.environ.update(self.environment)
        ray = load()
        try:
            self.stages: Stages = pickle.loads(ray.get(self.packed[0]))
        except KshotError as error:
            raise SettingError(f"on {platform.node()}: {error}") from error
        return f"{platform.node()}, node {ray.get_runtime_context().get_node_id()}"

    def label(self, inputs: Sequence[Input]) -> tuple[list[ImageResult], KshotError | None]:
        """The results of images, and after them why the run cannot go on, if so."""
        results: list[ImageResult] = []
        try:
            _check_shared(self.stages.out, self.settings, inputs)
            results.extend(overlapped(inputs, self.stages.read, self.stages.infer, self.stages.write))
        except (OutputError, SettingError) as error:
            return results, error
        return results, None


def _check_shared(out: Path, settings: bytes, inputs: Sequence[Input]) -> None:
    """Raise `SettingError` where this machine does not see what the one that started the run sees."""
    missing = sorted({str(source.path.parent) for source in inputs if not source.path.parent.is_dir()})
    if _settings_in(out) != settings:
        problem = f"the output folder {out} on {platform.node()} is not the one of this run"
    elif missing:
        problem = f"there is no folder of images {missing[0]} on {platform.node()}"
    else:
        return
    raise SettingError(
        f"{problem}: all machines of a Ray cluster have to see the images and the output folder under the same paths; "
        "mount them there, or end that node, and go on with --resume (resume=True)"
    )


def _settings_in(out: Path) -> bytes:
    """By which a run's folder is told from another one that only has its path."""
    path = out / SETTINGS
    return path.read_bytes() if path.is_file() else b""


@dataclass(frozen=True)
class _Batch:
    """Images that go to an actor together."""

    inputs: Sequence[Input]
    deaths: int = 0
    """Of actors at this batch alone."""

    def again(self) -> list["_Batch"]:
        """What is to be done after an actor died at it: halves, so that one image that kills it is found."""
        if len(self.inputs) == 1:
            return [replace(self, deaths=self.deaths + 1)] if self.deaths + 1 < _MOST_DEATHS else []
        half = len(self.inputs) // 2
        return [_Batch(self.inputs[:half]), _Batch(self.inputs[half:])]


def _spread(ray: Any, inputs: Sequence[Input], stages: Stages, workers: int) -> Iterator[ImageResult]:
    each = "GPU" if stages.on_gpu else "CPU"
    count = min(workers or max(1, int(ray.cluster_resources().get(each, 1))), len(inputs))
    size = min(_LARGEST, -(-len(inputs) // (_BATCHES * count)))
    batches = deque(_Batch(inputs[first : first + size]) for first in range(0, len(inputs), size))
    environment = {name: value for name, value in os.environ.items() if name.startswith("KSHOT_")}
    # Within a list Ray hands the reference on: it is the actor that unpacks, and says what fails.
    packed = [ray.put(ray.cloudpickle.dumps(stages))]
    kind = ray.remote(_Labeller).options(**{f"num_{each.lower()}s": 1})
    actors = _Actors(ray, lambda: kind.remote(packed, _settings_in(stages.out), environment))
    try:
        for _ in range(count):
            actors.start()
        while batches or actors.at_work:
            actors.give(batches)
            results, problem = actors.wait()
            yield from results
            if isinstance(problem, KshotError):
                raise problem
            if problem:
                again = problem.again()
                batches.extend(again)
                if not again:
                    yield _killing(problem.inputs[0])
    finally:
        actors.end()


class _Actors:
    """A number of actors, which is kept whatever dies; `make` makes one."""

    def __init__(self, ray: Any, make: Callable[[], Any]):
        self.ray, self.make = ray, make
        self.idle: list[Any] = []
        self.busy: dict[Any, tuple[Any, _Batch | None]] = {}  # by the awaited answer; no batch while an actor starts
        self.failed_starts = 0

    @property
    def at_work(self) -> bool:
        """Whether any has a batch; one that has no room in the cluster yet keeps nobody waiting."""
        return any(batch for _, batch in self.busy.values())

    def start(self) -> None:
        """One more."""
        actor = self.make()
        self.busy[actor.start.remote(__version__)] = actor, None

    def give(self, batches: deque[_Batch]) -> None:
        """Hand batches to those that are idle."""
        while self.idle and batches:
            actor, batch = self.idle.pop(), batches.popleft()
            self.busy[actor.label.remote(batch.inputs)] = actor, batch

    def wait(self) -> tuple[list[ImageResult], _Batch | KshotError | None]:
        """The next results, with the batch at which an actor died, or why the run cannot go on."""
        errors = self.ray.exceptions
        (answer,), _ = self.ray.wait(list(self.busy), num_returns=1)
        actor, batch = self.busy.pop(answer)
        try:
            found = self.ray.get(answer)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError) as error:
            log.warning("an actor died and is started again: %s", _last_line(error))
            self._replace(actor, is_new=batch is None)
            return [], batch
        self.idle.append(actor)
        if batch is None:
            self.failed_starts = 0
            log.info("an actor does images on %s", found)
            found = [], None
        results, problem = found
        return results, problem

    def _replace(self, actor: Any, *, is_new: bool) -> None:
        self.ray.kill(actor)  # one whose answer was lost may live
        self.failed_starts += is_new
        if self.failed_starts == _MOST_DEATHS:
            raise OutputError("the run on Ray ended: actors die while they load the model; see the memory of its nodes")
        self.start()

    def end(self) -> None:
        """Kill them, so that none writes after the run."""
        for actor in [*self.idle, *(actor for actor, _ in self.busy.values())]:
            self.ray.kill(actor)


def _killing(source: Input) -> ImageResult:
    reason = f"{_MOST_DEATHS} actors died at this image alone; it may need more memory than their machines have"
    return ImageResult(source, {"input": source.name, "status": FAILED, "reason": reason})


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def load() -> Any:
    """Ray. Raises `SettingError` with the way to get it."""
    # A tool that labels private images tells nobody of it, unless somebody wants that.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise SettingError(f"the engine ray needs Ray ({error}); pip install 'kshot[ray]'") from error


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
