"""The steps of a run on a Ray cluster: files -> batches on actors that hold the model -> writers.

All machines need the images and the output folder under the same paths. A row is one image; what goes wrong with it
is in its record, as in a local run, so that no row is lost and none stops the others.
"""

from collections.abc import Generator, Iterable
from importlib.util import find_spec
from typing import Any

import torch

from kshot.batch.jobs import Job
from kshot.batch.steps import Steps, Work
from kshot.errors import SettingError

_BATCH = 4
Rows = dict[str, Any]


def on_ray(jobs: Iterable[Job | None], steps: Steps, workers: int) -> Generator[Work]:
    """Work that is done, in the order of the jobs; `workers` actors (at least one) infer.

    A running cluster is used when RAY_ADDRESS names one, else this machine alone. Raises `SettingError` without Ray.
    """
    if find_spec("ray") is None:
        raise SettingError("--engine ray needs Ray on all machines: pip install 'kshot[ray]', or leave it out")
    import ray

    items = [{"job": job} for job in jobs if job is not None]
    if not items:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    shared = ray.put(steps)
    threads = torch.get_num_threads()
    read = ray.data.from_items(items, override_num_blocks=max(1, len(items) // _BATCH)).map(
        _read, fn_kwargs={"steps": shared}
    )
    inferred = read.map_batches(
        _Labeller,
        fn_constructor_kwargs={"steps": shared, "threads": threads},
        batch_size=_BATCH,
        concurrency=max(1, workers),
    )
    for row in inferred.map(_write, fn_kwargs={"steps": shared}).iter_rows():
        yield row["work"]


class _Labeller:
    """An actor: one copy of the model."""

    def __init__(self, steps: Any, threads: int):
        # As many threads as a local run has, because sums in another order may differ in their last bit.
        torch.set_num_threads(threads)
        self.steps = _fetched(steps)

    def __call__(self, batch: Rows) -> Rows:
        return {"work": [self.steps.infer(work) for work in batch["work"]]}


def _read(row: Rows, steps: Any) -> Rows:
    return {"work": _fetched(steps).read(row["job"])}


def _write(row: Rows, steps: Any) -> Rows:
    return {"work": _fetched(steps).write(row["work"])}


def _fetched(steps: Any) -> Steps:
    import ray

    found: Steps = ray.get(steps) if isinstance(steps, ray.ObjectRef) else steps
    return found
