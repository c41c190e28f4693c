"""run.json, its lists and results.json: checked when read, and a run goes on only over the data that it began with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kshot
from kshot.data.base import load_dataset
from kshot.errors import KshotError, SettingError
from kshot.evaluation import Result, evaluate, load_result
from kshot.evaluation.sweep import load_results
from tests.support.disc_folders import make_discs


@pytest.fixture(scope="module")
def done(toy: kshot.Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set in data/ and a finished run of it in run/."""
    folder = tmp_path_factory.mktemp("done")
    evaluate(toy, load_dataset("folder", make_discs(folder / "data", count=4)), episodes=3, out=folder / "run")
    return folder


@pytest.fixture
def place(done: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(done, tmp_path / "place"))


def go_on(toy: kshot.Segmenter, place: Path, **options: Any) -> Result:
    return evaluate(toy, load_dataset("folder", place / "data"), episodes=3, out=place / "run", **options)


def changed(run: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of run.json with another value at a path such as settings/way."""
    whole = json.loads(json.dumps(run))
    *outer, last = path.split("/")
    inner = whole
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return dict(whole)


def test_run_json_refers_to_its_lists(done: Path) -> None:
    run = json.loads((done / "run" / "run.json").read_text())
    assert set(run["sha256"]) == {"episodes.csv", "files.csv"}
    lines = (done / "run" / "files.csv").read_text().splitlines()
    assert lines[0] == "path,bytes,sha256" and len(lines) == 1 + sum(p.is_file() for p in (done / "data").rglob("*"))
    assert "sha256" not in load_result(done / "run").settings


def test_a_changed_mask_an_image_that_is_gone_and_a_new_one_are_named(toy: kshot.Segmenter, place: Path) -> None:
    before = go_on(toy, place)
    mask = place / "data" / "disc" / "disc1.png"
    data = mask.read_bytes()
    mask.write_bytes(data + b"\0")
    with pytest.raises(SettingError, match=r"changed since this run began: disc/disc1\.png is another file"):
        go_on(toy, place)
    mask.write_bytes(data)
    image = place / "data" / "corner" / "corner0.jpg"
    image.rename(place / "image.jpg")
    with pytest.raises(SettingError, match=r"corner/corner0\.jpg is missing"):
        go_on(toy, place)
    (place / "image.jpg").rename(image)
    for suffix in (".jpg", ".png"):
        shutil.copy(place / "data" / "disc" / f"disc0{suffix}", place / "data" / "disc" / f"new{suffix}")
    with pytest.raises(SettingError, match=r"disc/new\.jpg is new"):
        go_on(toy, place)
    for suffix in (".jpg", ".png"):
        (place / "data" / "disc" / f"new{suffix}").unlink()
    assert go_on(toy, place).rows == before.rows


def test_lists_of_a_person_are_not_replaced_and_those_of_a_killed_run_are(toy: kshot.Segmenter, place: Path) -> None:
    whole = {path.name: path.read_bytes() for path in (place / "run").iterdir() if path.is_file()}
    (place / "run" / "run.json").unlink()  # killed before the last of the three
    go_on(toy, place)
    for name in ("episodes.csv", "files.csv"):
        shutil.rmtree(place / "run")
        (place / "run").mkdir()
        (place / "run" / name).write_text("mine")
        with pytest.raises(SettingError, match=rf"{name}: is of no run here, and would be replaced"):
            go_on(toy, place)
        assert [(path.name, path.read_text()) for path in (place / "run").iterdir()] == [(name, "mine")]
    assert {"run.json", "episodes.csv", "files.csv"} <= whole.keys()


def test_lists_that_are_not_the_runs_own_are_refused(toy: kshot.Segmenter, place: Path) -> None:
    files = place / "run" / "files.csv"
    text = files.read_text()
    files.write_text(text.replace("disc0", "disc9"))
    with pytest.raises(SettingError, match=r"files\.csv: damaged"):
        go_on(toy, place)
    files.unlink()
    with pytest.raises(SettingError, match=r"files\.csv: cannot be read"):
        go_on(toy, place)
    files.write_text(text)
    path = place / "run" / "run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps(changed(run, "sha256/episodes.csv", "0" * 64)))
    with pytest.raises(SettingError, match="other episodes under the same settings"):
        go_on(toy, place)
    del run["sha256"]
    path.write_text(json.dumps(run))
    with pytest.raises(SettingError, match="kept no list"):
        go_on(toy, place)
    assert len(load_result(place / "run").rows) == 3  # what it found can still be read


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("settings", []),
        ("settings/way", 0),
        ("settings/way", 3),
        ("settings/way", 1.0),
        ("settings/episodes", 10**18),
        ("settings/episodes", "3"),
        ("settings/seed", None),
        ("settings/fold", -1),
        ("settings/protocol", 5),
        ("settings/backbone", None),
        ("settings/backbone/identity", 1),
        ("settings/method_settings", "none"),
        ("settings/drop_small", 0),
        ("names", "disc"),
        ("names", [1, 2]),
        ("classes", []),
        ("classes", [1, 3]),
        ("classes", [1, 1]),
        ("classes", [True]),
        ("remarks", {}),
        ("remarks", ["\ud800"]),
        ("versions", None),
        ("versions/kshot", float("nan")),
    ],
    ids=repr,
)
def test_a_wrong_value_is_named(path: str, value: Any, toy: kshot.Segmenter, place: Path) -> None:
    file = place / "run" / "run.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    for read in (lambda: load_result(place / "run"), lambda: go_on(toy, place)):
        with pytest.raises(SettingError, match=r"run\.json: damaged"):
            read()


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"settings": Infinity}', b'{"a": 1e999}'])
def test_what_is_no_run_is_refused(data: bytes, place: Path) -> None:
    (place / "run" / "run.json").write_bytes(data)
    with pytest.raises(SettingError, match=r"run\.json: damaged"):
        load_result(place / "run")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{}", b'{"runs": []}', b'{"runs": {"../x": 1}}', b'{"runs": {"..": 1}}', b"[" * 99_999],
)
def test_what_is_no_result_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(data)
    with pytest.raises(SettingError, match=r"results\.json: damaged"):
        load_results(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_type_is_a_traceback(data: st.DataObject, done: Path, tmp_path: Path) -> None:
    run = json.loads((done / "run" / "run.json").read_text())
    paths = [*run, *(f"settings/{key}" for key in run["settings"]), *(f"settings/backbone/{key}" for key in ("size",))]
    value = data.draw(JSON)
    whole = changed(run, data.draw(st.sampled_from(paths)), value)
    (tmp_path / "run.json").write_text(json.dumps(whole))
    for rows in (done / "run").glob("rows-*.jsonl"):
        shutil.copy(rows, tmp_path)
    try:
        json.dumps(load_result(tmp_path).summary())
    except KshotError as error:
        assert str(tmp_path) in str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 3000), put=st.binary(max_size=6), over=st.integers(0, 6))
def test_no_bytes_are_a_traceback(at: int, put: bytes, over: int, done: Path, tmp_path: Path) -> None:
    text = (done / "run" / "run.json").read_bytes()
    (tmp_path / "run.json").write_bytes(text[:at] + put + text[at + over :])
    for rows in (done / "run").glob("rows-*.jsonl"):
        shutil.copy(rows, tmp_path)
    try:
        load_result(tmp_path)
    except KshotError as error:
        assert str(tmp_path) in str(error)
