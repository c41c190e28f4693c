"""The common loop: what it computes, when it stops, and what it says when it cannot go on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kshot.errors import SettingError, TrainingError
from kshot.training import checkpoint, log
from kshot.training.optimizer import make_optimizer
from kshot.training.schedule import Schedule
from kshot.training.trainer import _deciding, train
from tests.support.training_jobs import QUICK, Curve, run


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in log.read(out) if line["kind"] == log.TRAIN]


def weights(out: Path, name: str = checkpoint.LAST) -> dict[str, torch.Tensor]:
    return checkpoint.weights_of(out / name)[1]


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    schedule = Schedule(**QUICK | {"steps": 200, "validate_every": 50, "save_every": 50})
    outcome = train(
        Curve(64, dropout=0.0),
        schedule,
        tmp_path,
        {},
        progress=lambda stage, done, steps, _: seen.append((done, steps)),
    )
    assert seen == [(n, 200) for n in range(1, 201)]
    assert outcome.steps == 200 and outcome.stopped == "" and outcome.best < 0.1
    validations = [line for line in log.read(tmp_path) if line["kind"] == log.VALIDATION]
    assert [line["step"] for line in validations] == [50, 100, 150, 200]
    assert (outcome.best_step, outcome.best) == min(
        ((line["step"], line["loss"]) for line in validations), key=lambda pair: pair[1]
    )
    assert log.read(tmp_path)[-1]["why"] == "all steps are done"


def test_the_best_state_is_the_one_that_was_validated(tmp_path: Path) -> None:
    outcome = run(tmp_path)
    job = Curve()
    checkpoint.load_weights(job.model, weights(tmp_path, checkpoint.BEST), outcome.path)
    job.model.eval()
    with torch.no_grad():
        assert job.validate()["loss"] == outcome.best


def test_accumulated_batches_equal_a_larger_one(tmp_path: Path) -> None:
    run(tmp_path / "large", {"batch_size": 8}, dropout=0.0)
    run(tmp_path / "parts", {"batch_size": 2, "grad_accumulation_steps": 4}, dropout=0.0)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "large"), rel=1e-5)
    for name, tensor in weights(tmp_path / "large").items():
        torch.testing.assert_close(weights(tmp_path / "parts")[name], tensor, atol=1e-5, rtol=1e-4)


def test_bfloat16_trains_about_the_same(tmp_path: Path) -> None:
    run(tmp_path / "half", {"dtype": "bfloat16"}, dropout=0.0)
    run(tmp_path / "full", dropout=0.0)
    half, full = losses(tmp_path / "half"), losses(tmp_path / "full")
    assert half != full and half == pytest.approx(full, rel=0.1)
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.float32}


def test_the_average_is_the_running_mean_of_the_weights(tmp_path: Path) -> None:
    """Step by step, from the weights that a plain run has there; a young mean keeps (1 + t) / (10 + t)."""
    expected = {name: tensor.clone() for name, tensor in Curve().model.state_dict().items()}
    states: list[dict[str, torch.Tensor]] = []
    job = Curve()
    schedule = Schedule(**QUICK | {"steps": 4, "ema_decay": 0.5})

    def kept(*_: object) -> None:
        states.append({name: tensor.clone() for name, tensor in job.model.state_dict().items()})

    train(job, schedule, tmp_path / "mean", {}, progress=kept)
    for step, state in enumerate(states):
        keep = min(0.5, (1 + step) / (10 + step))
        expected = {name: keep * expected[name] + (1 - keep) * state[name] for name in expected}
    found = weights(tmp_path / "mean")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)
        assert not torch.allclose(found[name], states[-1][name])


def test_what_is_averaged_is_what_is_judged(tmp_path: Path) -> None:
    outcome = run(tmp_path, {"ema_decay": 0.9, "steps": 4})
    job = Curve()
    checkpoint.load_weights(job.model, weights(tmp_path, checkpoint.BEST), outcome.path)
    job.model.eval()
    with torch.no_grad():
        assert job.validate()["loss"] == outcome.best


def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    """A rate so small that float32 hardly moves: the first validation stays the best or all are the same."""
    plan = {"lr": 1e-30, "steps": 40, "validate_every": 2, "patience": 3}
    outcome = run(tmp_path, plan)
    assert (outcome.steps, outcome.best_step) == (8, 2)
    assert outcome.stopped == "no better loss in 3 validations" == log.read(tmp_path)[-1]["why"]
    before = (tmp_path / checkpoint.LAST).read_bytes()
    again = run(tmp_path, plan, resume=True)
    assert (again.steps, again.stopped) == (8, outcome.stopped)
    assert (tmp_path / checkpoint.LAST).read_bytes() == before


def test_more_is_better_where_that_is_said(tmp_path: Path) -> None:
    found = iter([0.1, 0.4, 0.3])
    job = Curve()
    job.validate = lambda: {"miou": next(found)}
    outcome = train(job, Schedule(**QUICK | {"monitor": "+miou"}), tmp_path, {})
    assert (outcome.best_step, outcome.best) == (8, 0.4)


def test_an_unknown_figure_to_watch_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="monitor miou: a validation gives loss"):
        run(tmp_path, {"monitor": "+miou"})


@pytest.mark.parametrize("how", ["spoil", "explode"])
def test_what_is_not_finite_stops_before_it_is_learned(tmp_path: Path, how: str) -> None:
    with pytest.raises(TrainingError, match=r"step 9: the loss is not finite.*last good state is .*last\.safetensors"):
        run(tmp_path, **{how: 9})
    facts, found = checkpoint.weights_of(tmp_path / checkpoint.LAST)
    assert facts["state"]["step"] == 8
    assert all(bool(tensor.isfinite().all()) for tensor in found.values())
    assert "not finite" in log.read(tmp_path)[-1]["why"]
    assert run(tmp_path, resume=True).steps == 12  # without the fault it goes on


def test_nothing_saved_yet_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 1: .*no state was saved yet"):
        run(tmp_path, spoil=1)


def test_out_of_memory_names_the_batch_that_fits(tmp_path: Path) -> None:
    """Real memory: 2 ** 57 bytes an example are more than an address space holds."""
    with pytest.raises(TrainingError, match=r"batches of 6; use .*--batch-size 3 --grad-accumulation-steps 4.*resumed"):
        run(tmp_path, {"batch_size": 6, "grad_accumulation_steps": 2}, hungry=2**57)
    with pytest.raises(TrainingError, match="batches of 1; use smaller images"):
        run(tmp_path, {"batch_size": 1}, hungry=2**57)


def test_the_way_out_of_memory_leads_on(tmp_path: Path) -> None:
    plan = {"batch_size": 6, "grad_accumulation_steps": 2, "save_every": 2}
    run(tmp_path / "a", plan, dropout=0.0)
    with pytest.raises(TrainingError):
        run(tmp_path / "b", plan, dropout=0.0, spoil=3)
    run(tmp_path / "b", plan | {"batch_size": 3, "grad_accumulation_steps": 4}, resume=True, dropout=0.0)
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), rel=1e-5)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    job = Curve()
    job.losses = lambda batch: {"loss": job.model(torch.zeros(2, 5)).sum()}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(job, Schedule(**QUICK), tmp_path, {})


def test_a_checkpoint_that_tells_of_no_processes_is_of_one() -> None:
    told = {"schedule": {"batch_size": 6, "grad_accumulation_steps": 2}}
    assert _deciding(told) == _deciding(told | {"processes": 1}) == {"examples a step": 12}


def test_changed_settings_are_named(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(TrainingError, match=r"other settings \(lr: 0\.02 then, 0\.5 now; seed: 0 then, 3 now\)"):
        run(tmp_path, {"lr": 0.5, "seed": 3}, resume=True)
    with pytest.raises(TrainingError, match=r"ema_decay: 0\.0 then, 0\.9 now"):
        run(tmp_path, {"ema_decay": 0.9}, resume=True)
    with pytest.raises(TrainingError, match="width: None then, 9 now"):
        run(tmp_path, resume=True, width=9)
    with pytest.raises(TrainingError, match="examples a step: 8 then, 16 now"):
        run(tmp_path, {"batch_size": 16}, resume=True)


def test_settings_are_the_same_after_a_round_trip(tmp_path: Path) -> None:
    for resume in (False, True):
        train(Curve(), Schedule(**QUICK), tmp_path, {"sides": (128, 160), "none": None}, resume=resume)
    assert json.loads((tmp_path / log.SETTINGS).read_text())["sides"] == [128, 160]


def test_another_architecture_is_named(tmp_path: Path) -> None:
    train(Curve(16), Schedule(**QUICK), tmp_path, {})
    with pytest.raises(TrainingError, match=r"another architecture: 0\.bias is \(16,\) there and \(9,\) here"):
        train(Curve(9), Schedule(**QUICK), tmp_path, {}, resume=True)


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(TrainingError, match=r"last\.safetensors: a run lies here already; resume it"):
        run(tmp_path)
    with pytest.raises(TrainingError, match="no such checkpoint to resume"):
        run(tmp_path / "other", resume=True)


def test_weights_may_have_rates_of_their_own(tmp_path: Path) -> None:
    job = Curve()
    job.lr_multipliers = {"3.": 0.0, "0.bias": 0.5}
    made = make_optimizer(job.model, 1e-3, 0.1, 0.0, job.lr_multipliers)
    groups = {(group["lr_multiplier"], group["weight_decay"]): len(group["params"]) for group in made.param_groups}
    assert groups == {(1.0, 0.1): 1, (0.5, 0.0): 1, (0.0, 0.1): 1, (0.0, 0.0): 1}
    before = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
    train(job, Schedule(**QUICK | {"steps": 1}), tmp_path, {})
    moved = {name: bool((tensor != before[name]).any()) for name, tensor in job.model.state_dict().items()}
    assert moved == {"0.weight": True, "0.bias": True, "3.weight": False, "3.bias": False}


def test_a_checkpoint_of_older_settings_is_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path)
    facts, tensors = checkpoint.read(tmp_path / checkpoint.LAST)
    schedule = facts["settings"]["schedule"]
    schedule["accumulate"], schedule["average"] = schedule.pop("grad_accumulation_steps"), schedule.pop("ema_decay")
    save_file(tensors, tmp_path / checkpoint.LAST, {"kshot": json.dumps(facts)})
    with pytest.raises(TrainingError, match=r"accumulate: 1 then, None now; average: 0\.0 then, None now; ema_decay"):
        run(tmp_path, resume=True)
