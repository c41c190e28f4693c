"""Run the episodes of a protocol into a folder, resume what is there, and read it back."""

import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot import _plugins
from kshot._version import __version__
from kshot.data.base import Dataset
from kshot.episodes.sampler import Episodes, draw_episodes
from kshot.errors import SettingError
from kshot.evaluation.records import RowRules, read_rows
from kshot.evaluation.result import Result
from kshot.evaluation.run_file import RUN, check_same_run, read_run, write_run
from kshot.evaluation.workers import EvaluationJob, Progress, rank_and_world_size, run_job
from kshot.features.cache import MAX_BYTES
from kshot.io.tensor_file import Learned, read_learned
from kshot.ops.components import check_method
from kshot.segmenter import Segmenter


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
    instances: str | None = None,
    allow_repeats: bool = False,
    drop_small: bool = False,
    workers: int = 1,
    cache: str | Path | None = None,
    cache_bytes: int = MAX_BYTES,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Evaluate on the episodes of a protocol (`kshot.episodes.protocols.PROTOCOLS`).

    way, shot, seed, protocol, allow_repeats, drop_small: as `draw_episodes` takes. episodes: how many (default: the
    protocol's own), or an `Episodes`, such as one read from a CSV, which makes those settings void. score_size: score
    at this square size in pixels instead of the query's own. instances: compare objects too, taken apart by
    "watershed", "learned" or "components" (`Prediction.instances`): the result then has PQ, SQ, RQ, AP50 and the count
    error. workers: processes. cache: folder of features, shared by
    runs. cache_bytes: its bound. out: folder of the run; a run that was stopped there goes on, one that is done is
    read. progress: called with episodes done, episodes in all, and the mIoU so far.
    Raises `SettingError` (also when `out` holds another run, a damaged one, or one over other files of the data set),
    `DatasetError` (also for instances of a data set whose truth tells no objects apart) and `OutputError`.
    """
    if not isinstance(episodes, Episodes):
        options = {"allow_repeats": allow_repeats, "drop_small": drop_small}
        episodes = draw_episodes(data, protocol, way, shot, episodes, seed, **options)
    if instances is not None:
        _check_instances(instances, score_size, data, episodes)
    if out is None and rank_and_world_size()[1] > 1:
        raise SettingError("several processes meet in the folder of the run: name one (out)")
    with tempfile.TemporaryDirectory(prefix="kshot-eval-") as temporary:
        folder = Path(out) if out is not None else Path(temporary)
        place = Path(cache) if cache else None
        job = EvaluationJob(segmenter, data, episodes, folder, place, cache_bytes, score_size, instances)
        run = _open(job)
        forwards = run_job(job, workers, progress)
        return _result(run, folder, forwards)


def load_result(folder: str | Path) -> Result:
    """The result of a run folder. Raises `SettingError` when it holds none, an unfinished or a damaged one."""
    path = Path(folder) / RUN
    if not path.is_file():
        raise SettingError(f"{folder}: holds no run (no {RUN}); give a folder that `kshot eval` wrote")
    return _result(read_run(path), Path(folder), 0)


def versions() -> dict[str, str]:
    """What the figures were computed with."""
    found = {"kshot": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return found | {"python": platform.python_version(), "machine": platform.machine()}


def _check_instances(method: str, score_size: int | None, data: Dataset, episodes: Episodes) -> None:
    """Refuse what cannot be compared object by object, before anything is written."""
    check_method(method)
    if score_size is not None:
        raise SettingError("instances (--instances) are compared at the query's own size: without score_size")
    data.check_objects(episode.query for episode in episodes)
    data.objects(episodes[0].query)  # a mask alone says whether it numbers objects


def _open(job: EvaluationJob) -> dict[str, Any]:
    """Write down what the run is, or check that the folder's run is the same, over the same data."""
    run: dict[str, Any] = json.loads(json.dumps(_facts(job)))
    if (job.folder / RUN).exists():
        check_same_run(job.folder, run, job.data, job.episodes)
    else:
        write_run(job.folder, run, job.data, job.episodes)
    return run


def _facts(job: EvaluationJob) -> dict[str, Any]:
    """All that the figures depend on, and what a reader must know of them."""
    segmenter, sampled = job.segmenter, asdict(job.episodes.settings)
    # The main figure is a mean over the classes that an episode asks for.
    classes = sorted({class_id for episode in job.episodes for class_id in episode.classes})
    learned = _learned(segmenter)
    settings = {
        "protocol": sampled["protocol"],
        "backbone": asdict(segmenter.feature_spec),
        "dtype": str(segmenter.backbone.dtype).removeprefix("torch."),
        "method": _plugins.name_of(segmenter.method),
        "method_settings": asdict(segmenter.settings),
        "refiner": _plugins.name_of(segmenter.refiner),
        "refiner_settings": asdict(segmenter.refiner_settings),
        "resolution": "the query's own" if job.score_size is None else f"{job.score_size} x {job.score_size}",
        "ignored": "255, left out of intersection and union",
        **sampled,
        "episodes": len(job.episodes),
    }
    if job.instances is not None:
        settings["instances"] = job.instances
    if segmenter.chooses_size:
        settings["sizes"] = list(segmenter.sizes)
    settings |= segmenter.method.Task.source_facts()
    if learned is not None:  # other weights in the same place make another run
        settings["learned"] = learned.digest
    return {
        "settings": settings,
        "root": str(job.data.root),
        "names": job.data.classes,
        "classes": classes,
        "remarks": _warnings(job.data, job.episodes, classes, learned),
        "versions": versions(),
    }


def _warnings(data: Dataset, episodes: Episodes, classes: Sequence[int], learned: Learned | None) -> list[str]:
    """What a reader must know before citing the figure."""
    told = [f"left out: {'; '.join(episodes.dropped)}"] if episodes.dropped else []
    told += [f"missing: {problem}" for problem in data.problems] + list(data.shortfalls(data))
    if learned is not None:
        known = sorted({data.classes[c - 1] for c in classes} & set(learned.facts.get("base", ())))
        told += [f"not novel: the weights were learned on {', '.join(known)}"] if known else []
    if data.folds and episodes.settings.fold is None and episodes.settings.protocol != "seed":
        told.append(f"all classes in one pool; the published figures are means over {len(data.folds)} folds (fold all)")
    return told


def _learned(segmenter: Segmenter) -> Learned | None:
    place: str = getattr(segmenter.settings, "weights", "")
    return read_learned(place) if place else None


def _result(run: dict[str, Any], folder: Path, forwards: int) -> Result:
    rows, expected = read_rows(folder, RowRules.of(run)), run["settings"]["episodes"]
    missing = expected - len(rows)
    if missing:
        raise SettingError(f"{folder}: {missing} of {expected} episodes are not done; run the same command to go on")
    ordered = tuple(rows[index] for index in range(expected))
    return Result(ordered, tuple(run["names"]), tuple(run["classes"]), run["settings"], tuple(run["remarks"]), forwards)
