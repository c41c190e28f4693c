"""The report of a training run."""

import json
from pathlib import Path

import pytest

from kshot.errors import TrainingError
from kshot.report.training import write_report
from kshot.training import log
from tests.support.training_jobs import QUICK, run


def test_the_report_shows_curves_settings_and_the_end(tmp_path: Path) -> None:
    outcome = run(tmp_path, {"ema_decay": 0.5})
    page = write_report(tmp_path).read_text()
    assert page.count("<polyline") >= 4 and "http" not in page.replace("http-equiv", "")
    assert f"best loss {outcome.best:.4g} after step {outcome.best_step}" in " ".join(page.split())
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


def test_a_run_of_another_version_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    facts = json.loads((tmp_path / log.SETTINGS).read_text())
    facts["schedule"]["accumulate"] = facts["schedule"].pop("grad_accumulation_steps")
    (tmp_path / log.SETTINGS).write_text(json.dumps(facts))
    with pytest.raises(TrainingError, match=r"training\.json: written by another version"):
        write_report(tmp_path)
