"""Ahead, the log, the checkpoint file and the report, each by itself."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.errors import TrainingError
from kshot.report.training import write_report
from kshot.training import checkpoint, log
from kshot.training.prefetch import Ahead
from tests.support.training_jobs import QUICK, run


@settings(max_examples=20, deadline=None)
@given(items=st.lists(st.integers(), max_size=30))
def test_ahead_keeps_items_and_order(items: list[int]) -> None:
    with Ahead(iter(items)) as ahead:
        assert list(ahead) == items


def test_ahead_makes_one_item_while_another_is_used() -> None:
    made: list[int] = []

    def items():
        for n in range(5):
            made.append(n)
            yield n, threading.current_thread().name

    with Ahead(items()) as ahead:
        for n, thread in ahead:
            until = time.monotonic() + 5
            while len(made) < min(n + 2, 5) and time.monotonic() < until:
                time.sleep(0.001)
            assert made == list(range(min(n + 2, 5))) and thread.startswith("batches")


def test_ahead_hands_errors_on_where_they_belong() -> None:
    def items():
        yield 1
        yield 2
        raise TrainingError("photo 3 is gone")

    seen = []
    with pytest.raises(TrainingError, match="photo 3 is gone"), Ahead(items()) as ahead:
        for item in ahead:
            seen += [item]
    assert seen == [1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_ahead_ends_with_who_reads_it() -> None:
    with pytest.raises(KeyError), Ahead(iter(range(100))) as ahead:
        for _ in ahead:
            raise KeyError("stop")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


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


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    model, path = torch.nn.Linear(3, 2), tmp_path / "x.safetensors"
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint.save(path, {"step": 7}, model, {"weight": torch.full((2, 3), 0.5)}, optimizer)
    facts, tensors = checkpoint.read(path)
    other, average = torch.nn.Linear(3, 2), {"weight": torch.zeros(2, 3)}
    fresh = torch.optim.AdamW(other.parameters())
    checkpoint.restore(path, tensors, other, average, fresh)
    assert facts == {"step": 7} and torch.equal(average["weight"], torch.full((2, 3), 0.5))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    one, two = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert all(torch.equal(one[n][key], two[n][key]) for n in one for key in one[n])
    assert torch.equal(checkpoint.weights_of(path)[1]["weight"], average["weight"])


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(TrainingError, match=r"x\.safetensors: not a checkpoint of kshot"):
        checkpoint.read(tmp_path / "x.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(TrainingError, match=r"y\.safetensors: not a checkpoint of kshot"):
        checkpoint.read(tmp_path / "y.safetensors")


def test_the_report_shows_curves_settings_and_the_end(tmp_path: Path) -> None:
    outcome = run(tmp_path, {"average": 0.5})
    page = write_report(tmp_path).read_text()
    assert page.count("<polyline") >= 4 and "http" not in page.replace("http-equiv", "")
    assert f"best loss {outcome.best[1]:.4g} after step {outcome.best[0]}" in " ".join(page.split())
    assert "all steps are done" in page and "12 of 12" in page
    for name, value in QUICK.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page


def test_the_report_of_a_run_that_failed_or_was_killed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        run(tmp_path, spoil=2)
    assert "step 2: the loss is not finite" in write_report(tmp_path).read_text()
    lines = (tmp_path / log.LOG).read_text().splitlines()
    (tmp_path / log.LOG).write_text("\n".join(lines[:-1]) + "\n")
    page = write_report(tmp_path).read_text()
    assert "not validated yet" in page and "it goes on, or was killed" in page
    with pytest.raises(TrainingError, match=r"training\.json: no settings of a training run"):
        write_report(tmp_path / "nothing")


def test_the_report_escapes_what_it_shows(tmp_path: Path) -> None:
    run(tmp_path)
    facts = json.loads((tmp_path / log.SETTINGS).read_text())
    (tmp_path / log.SETTINGS).write_text(json.dumps(facts | {"what": "<script>alert(1)</script>"}))
    assert "<script>" not in write_report(tmp_path).read_text()
