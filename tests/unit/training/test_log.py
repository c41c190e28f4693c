"""The log of a run: what resuming cuts off, who writes, and TensorBoard's events."""

import time
from pathlib import Path

import numpy as np
import pytest

from kshot.training import log
from tests.support.training_jobs import run


def test_a_log_is_cut_to_the_step_of_its_checkpoint(tmp_path: Path) -> None:
    first = log.Log(tmp_path, True)
    first.begin({"a": 1}, 0)
    for step in (1, 2, 3):
        first.step(step, {"loss": 1.0 / step})
    first.validation(2, {"loss": 0.4})
    first.end(3, "interrupted")
    first.close()
    with (tmp_path / log.LOG).open("a") as file:
        file.write('{"step": 4, "kin')  # what a kill leaves
    time.sleep(0.02)
    second = log.Log(tmp_path, True)
    second.begin({"a": 1}, 2)
    second.step(3, {"loss": 9.0})
    second.close()
    found = log.read(tmp_path)
    assert [(line["step"], line["kind"], line["loss"]) for line in found] == [
        (1, "train", 1.0),
        (2, "train", 0.5),
        (2, "val", 0.4),
        (3, "train", 9.0),
    ]
    assert found[-1]["seconds"] >= found[-2]["seconds"]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    other = log.Log(tmp_path, False)
    other.begin({}, 0)
    other.step(1, {"loss": 1.0})
    other.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_the_log_says(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / log.EVENTS))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/error", "train/lr", "val/loss"}
    for kind in (log.TRAIN, log.VALIDATION):
        told = [(line["step"], np.float32(line["loss"])) for line in log.read(tmp_path) if line["kind"] == kind]
        assert [(event.step, np.float32(event.value)) for event in events.Scalars(f"{kind}/loss")] == told
