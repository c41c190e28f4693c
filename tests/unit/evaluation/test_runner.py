"""The same integers from one process or several, killed or not; and no forward pass twice."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kshot
from kshot.data.base import Dataset, load_dataset
from kshot.episodes.csv import read_episodes, write_episodes
from kshot.episodes.sampler import draw_episodes
from kshot.errors import DatasetError, KshotError, SettingError
from kshot.evaluation import Result, evaluate, load_result
from kshot.evaluation.records import RowRules, read_rows
from tests.support.disc_folders import make_discs, make_numbered_discs

COUNT = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_discs(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="module")
def data(root: Path) -> Dataset:
    return load_dataset("folder", root)


@pytest.fixture(scope="module")
def result(toy: kshot.Segmenter, data: Dataset) -> Result:
    return evaluate(toy, data, episodes=COUNT)


def test_the_public_names(toy: kshot.Segmenter, root: Path, result: Result) -> None:
    again = kshot.evaluate(toy, kshot.load_dataset("folder", root), way=1, shot=1, episodes=COUNT, protocol="hsnet")
    assert again.rows == result.rows
    assert 0 < result.miou <= 1 and 0 < result.fb_iou <= 1 and 0 <= result.presence_accuracy <= 1
    assert set(result.per_class) == {"disc", "corner"}
    assert result.confidence_interval.low <= result.miou <= result.confidence_interval.high
    assert json.loads(json.dumps(result.summary()))["rows_sha256"] == again.summary()["rows_sha256"]


def test_a_second_run_makes_no_forward_pass(
    toy: kshot.Segmenter, data: Dataset, result: Result, tmp_path: Path
) -> None:
    first = evaluate(toy, data, episodes=COUNT, cache=tmp_path / "cache", out=tmp_path / "a")
    assert 0 < first.forwards <= 12
    second = evaluate(toy, data, episodes=COUNT, cache=tmp_path / "cache", out=tmp_path / "b")
    read = evaluate(toy, data, episodes=COUNT, out=tmp_path / "a")
    assert second.forwards == read.forwards == 0
    assert first.rows == second.rows == read.rows == result.rows == load_result(tmp_path / "a").rows


def test_two_processes_give_the_same_bits(toy: kshot.Segmenter, data: Dataset, tmp_path: Path) -> None:
    one = evaluate(toy, data, way=2, episodes=50)
    two = evaluate(toy, data, way=2, episodes=50, workers=2, cache=tmp_path / "cache", out=tmp_path / "run")
    assert len(list((tmp_path / "run").glob("rows-*-of-2.jsonl"))) == 2
    assert one.rows == two.rows
    assert two.forwards == 12


def test_a_killed_run_goes_on(toy: kshot.Segmenter, data: Dataset, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "kshot", "eval", "folder", "--root", root, "-o", out, "--episodes", "400"]
    command += ["--backbone", "toy", "--size", "96", "--device", "cpu", "--workers", "1", "--cache", tmp_path / "cache"]
    rules = RowRules(400, 1, frozenset({1, 2}))
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    run = out / "1way-1shot"
    deadline = time.monotonic() + 60
    while len(read_rows(run, rules)) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 5 <= len(read_rows(run, rules)) < 400
    with next(run.glob("rows-*.jsonl")).open("a") as file:
        file.write('{"episode":399,"ta')
    with pytest.raises(SettingError, match="episodes are not done"):
        load_result(run)
    resumed = evaluate(toy, data, episodes=400, drop_small=True, out=run)
    assert resumed.rows == evaluate(toy, data, episodes=400, drop_small=True).rows


def test_processes_of_torchrun_give_the_same(result: Result, root: Path, tmp_path: Path) -> None:
    code = (
        "import sys, kshot; seg = kshot.Segmenter(backbone='toy', size=96, device='cpu');"
        "data = kshot.load_dataset('folder', sys.argv[1]);"
        f"result = kshot.evaluate(seg, data, episodes={COUNT}, out=sys.argv[2], cache=sys.argv[3]);"
        "print(result.summary()['rows_sha256'])"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "out"), str(tmp_path / "cache")]
    started = [
        subprocess.Popen(command, env=_environment(rank), stdout=subprocess.PIPE, text=True) for rank in range(2)
    ]
    told = {process.communicate()[0].strip() for process in started}
    assert told == {result.summary()["rows_sha256"]}


def _environment(rank: int) -> dict[str, str]:
    return os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}


def test_several_processes_need_a_folder(toy: kshot.Segmenter, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match="name one"):
        evaluate(toy, data, episodes=2)


def test_another_setting_in_the_same_folder_is_refused(toy: kshot.Segmenter, data: Dataset, tmp_path: Path) -> None:
    evaluate(toy, data, episodes=2, out=tmp_path / "run")
    with pytest.raises(SettingError, match=r"other settings .*seed"):
        evaluate(toy, data, episodes=2, seed=1, out=tmp_path / "run")
    with pytest.raises(SettingError, match="holds no run"):
        load_result(tmp_path)


def test_a_moved_data_set_is_the_same(toy: kshot.Segmenter, data: Dataset, root: Path, tmp_path: Path) -> None:
    evaluate(toy, data, episodes=2, out=tmp_path / "run")
    shutil.copytree(root, tmp_path / "discs")
    moved = evaluate(toy, load_dataset("folder", tmp_path / "discs"), episodes=2, out=tmp_path / "run")
    assert moved.forwards == 0


def test_episodes_of_another_data_set_are_refused(data: Dataset, tmp_path: Path) -> None:
    write_episodes(tmp_path / "episodes.csv", draw_episodes(data, count=2))
    other = load_dataset("folder", make_discs(tmp_path / "other", count=5))
    with pytest.raises(DatasetError, match=r"episodes of|another copy"):
        read_episodes(tmp_path / "episodes.csv", other)


def test_an_unwritable_cache_costs_the_cache_alone(
    toy: kshot.Segmenter, data: Dataset, result: Result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        found = evaluate(toy, data, episodes=COUNT, cache=tmp_path / "file" / "cache")
    assert found.rows == result.rows
    assert len([record for record in caplog.records if "not cached" in record.message]) == 1


def test_nothing_is_written_into_the_data_set(toy: kshot.Segmenter, tmp_path: Path) -> None:
    root = make_discs(tmp_path / "discs", count=3)
    before = sorted(root.rglob("*"))
    for folder in (root, root / "disc", root / "corner"):
        folder.chmod(0o555)
    try:
        evaluate(toy, load_dataset("folder", root), episodes=2, cache=tmp_path / "cache")
    finally:
        for folder in (root, root / "disc", root / "corner"):
            folder.chmod(0o755)
    assert sorted(root.rglob("*")) == before


def test_scoring_at_a_square_size(toy: kshot.Segmenter, data: Dataset) -> None:
    found = evaluate(toy, data, episodes=2, score_size=50)
    assert found.counts.counts.truth.sum(1).tolist() == [2500, 2500]
    assert found.settings["resolution"] == "50 x 50"


def test_progress_ends_with_the_figure(toy: kshot.Segmenter, data: Dataset) -> None:
    told: list[tuple[int, int, float]] = []
    found = evaluate(toy, data, episodes=3, progress=lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1][2] == pytest.approx(found.miou)


@pytest.mark.parametrize("method", ["components", "watershed", "learned"])
def test_objects_are_compared_one_by_one(method: str, toy: kshot.Segmenter, tmp_path: Path) -> None:
    data = load_dataset("folder", make_numbered_discs(tmp_path / "discs"))
    found = evaluate(toy, data, episodes=4, instances=method, out=tmp_path / "run")
    assert [row["objects"][0][0] for row in found.rows] == [2, 2, 2, 2]
    figures = found.objects
    assert figures is not None and figures.rq > 0.8 and figures.ap50 > 0.8 and figures.count_error < 0.3
    assert figures.pq == pytest.approx(figures.sq * figures.rq)  # of one class
    assert found.summary()["pq"] == figures.pq and found.settings["instances"] == method
    assert evaluate(toy, data, episodes=4, instances=method, out=tmp_path / "run").rows == found.rows
    assert found.pq_score is not None and found.pq_score.value == pytest.approx(figures.pq)
    plain = evaluate(toy, data, episodes=4)
    assert (
        plain.objects is None and plain.pq_interval is None and plain.miou == found.miou and "pq" not in plain.summary()
    )
    with pytest.raises(SettingError, match=r"other settings \(instances\)"):
        evaluate(toy, data, episodes=4, out=tmp_path / "run")


def test_objects_that_cannot_be_compared_are_refused_before_anything_is_written(
    toy: kshot.Segmenter, data: Dataset, tmp_path: Path
) -> None:
    for wrong, told in (({}, "tells no objects apart"), ({"score_size": 50}, "without score_size")):
        with pytest.raises(KshotError, match=told):
            evaluate(toy, data, episodes=2, instances="watershed", out=tmp_path / "run", **wrong)
    with pytest.raises(SettingError, match="choices: components, watershed, learned"):
        evaluate(toy, data, episodes=2, instances="both", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_with_instances_goes_on_where_it_was_cut(toy: kshot.Segmenter, tmp_path: Path) -> None:
    data, run = load_dataset("folder", make_numbered_discs(tmp_path / "discs")), tmp_path / "run"
    whole = evaluate(toy, data, episodes=4, instances="watershed", out=run)
    path = next(run.glob("rows-*.jsonl"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SettingError, match="1 of 4 episodes are not done"):
        load_result(run)
    assert evaluate(toy, data, episodes=4, instances="watershed", out=run).rows == whole.rows
