"""Rows that are not what a run wrote are refused by file and line, whatever bytes they are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kshot.errors import KshotError, SettingError
from kshot.evaluation.records import RowReader, RowRules, matches_of, matches_row, read_rows

RULES = RowRules(episodes=9, way=1, classes=frozenset({2, 4}))
FILE = "rows-0-of-1.jsonl"


def row(episode: int = 3, **changed: Any) -> dict[str, Any]:
    good = {
        "episode": episode,
        "table": [episode, 4, 50, 20, 60, 30, 55, 35],
        "present": [0.5],
        "boundary": [None],
        "calibration": [[1] * 15, [2] * 15, [0] * 15],
        "uncertainty": 0.25,
    }
    return good | changed


def write(folder: Path, *lines: str | bytes, name: str = FILE) -> None:
    whole = [line if isinstance(line, bytes) else line.encode() for line in lines]
    (folder / name).write_bytes(b"".join(line + b"\n" for line in whole))


def test_good_rows_are_read_and_a_cut_one_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(row(3)), json.dumps(row(0, boundary=[1.0])))
    with (tmp_path / FILE).open("a") as file:
        file.write(json.dumps(row(5))[:-9])
    assert read_rows(tmp_path, RULES) == {3: row(3), 0: row(0, boundary=[1.0])}


@pytest.mark.parametrize(
    "changed",
    [
        {"episode": 9},
        {"episode": -1},
        {"episode": True},
        {"episode": 3.0},
        {"table": [3, 4, 50, 20, 60, 30, 55]},
        {"table": [2, 4, 50, 20, 60, 30, 55, 35]},
        {"table": [3, 3, 50, 20, 60, 30, 55, 35]},
        {"table": [3, 4, 61, 20, 60, 30, 55, 35]},
        {"table": [3, 4, 50, 20, 60, 30, 55, 36]},
        {"table": [3, 4, 50, -1, 60, 30, 55, 35]},
        {"table": [3, 4, 50, 20.0, 60, 30, 55, 35]},
        {"table": [3, 4, 50, 20, 60, 2**63, 55, 35]},
        {"table": [[3, 4, 50, 20, 60, 30, 55, 35]]},
        {"present": [0.5, 0.5]},
        {"present": [None]},
        {"present": [1.5]},
        {"present": "0"},
        {"boundary": [-1]},
        {"boundary": [False]},
        {"calibration": [[1] * 15, [2] * 15]},
        {"calibration": [[1] * 15, [2] * 15, [0] * 14]},
        {"calibration": [[1] * 15, [2] * 15, [2] * 15]},
        {"calibration": None},
        {"uncertainty": "0.5"},
        {"uncertainty": 1e300},
        {"more": 1},
    ],
    ids=repr,
)
def test_a_wrong_value_names_the_line(changed: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, json.dumps(row(0)), json.dumps(row() | changed))
    with pytest.raises(SettingError, match=rf"{FILE}, line 2: expected .*; remove this line and run"):
        read_rows(tmp_path, RULES)


OBJECTS = [2, [[0.9, 60, 80], [0.4, 0, 12]]]


def test_rows_of_a_run_with_instances_say_which_objects_were_found(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(row(objects=[OBJECTS])), json.dumps(row(0, objects=[[0, []]])))
    rows = read_rows(tmp_path, replace(RULES, objects=True))
    matches = matches_of(rows[3]["objects"][0])
    assert (matches.true, matches.ious.tolist()) == (2, [0.75, 0.0])
    assert matches_row(matches) == OBJECTS and matches_row(matches_of([0, []])) == [0, []]
    with pytest.raises(SettingError, match="expected the keys"):
        read_rows(tmp_path, RULES)


@pytest.mark.parametrize(
    "objects",
    [
        None,
        [],
        [OBJECTS, OBJECTS],
        [[2]],
        [[-1, []]],
        [[0, [[0.9, 60, 80]]]],
        [[2, [[1.5, 60, 80]]]],
        [[2, [[0.9, 60]]]],
        [[2, [[0.9, 60, 59]]]],
        [[2, [[0.9, 60, 121]]]],
        [[2, [[0.9, 6.0, 8]]]],
        [[2, [0.9, 60, 80]]],
    ],
    ids=repr,
)
def test_wrong_objects_name_the_line(objects: Any, tmp_path: Path) -> None:
    write(tmp_path, json.dumps(row(objects=objects)))
    with pytest.raises(SettingError, match=f"{FILE}, line 1: expected 'objects' as"):
        read_rows(tmp_path, replace(RULES, objects=True))


@pytest.mark.parametrize("key", row())
def test_a_missing_value_names_the_line(key: str, tmp_path: Path) -> None:
    write(tmp_path, json.dumps({name: value for name, value in row().items() if name != key}))
    with pytest.raises(SettingError, match=f"{FILE}, line 1: expected"):
        read_rows(tmp_path, RULES)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"9" * 5000,
        json.dumps(row(uncertainty=float("nan"))),
        json.dumps(row(present=[float("inf")])),
        json.dumps(row()).replace("0.25", "1e999"),
    ],
    ids=range(9),
)
def test_a_line_that_is_no_row_is_named(line: bytes, tmp_path: Path) -> None:
    write(tmp_path, json.dumps(row(0)), json.dumps(row(1)), line)
    with pytest.raises(SettingError, match=f"{FILE}, line 3: "):
        read_rows(tmp_path, RULES)


def test_a_row_twice_has_to_be_the_same(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(row()))
    write(tmp_path, json.dumps(row(0)), json.dumps(row()), name="rows-1-of-2.jsonl")
    assert len(read_rows(tmp_path, RULES)) == 2
    write(tmp_path, json.dumps(row(0)), json.dumps(row(uncertainty=0.5)), name="rows-1-of-2.jsonl")
    with pytest.raises(SettingError, match=r"rows-1-of-2\.jsonl, line 2: another row of episode 3"):
        read_rows(tmp_path, RULES)


def test_lines_are_numbered_over_several_reads(tmp_path: Path) -> None:
    reader = RowReader(tmp_path, RULES)
    for episode in range(3):
        write(tmp_path, *(json.dumps(row(n)) for n in range(episode + 1)))
        assert [found["episode"] for found in reader.read()] == [episode]
    write(tmp_path, *(json.dumps(row(n)) for n in range(3)), "no row")
    with pytest.raises(SettingError, match="line 4: not JSON"):
        reader.read()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted(row())), value=JSON)
def test_no_type_is_a_traceback_or_believed(key: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path, json.dumps(row() | {key: value}))
    try:
        (found,) = read_rows(tmp_path, RULES).values()
    except SettingError:
        return
    assert RULES.fault(found) == "" and found["table"][0] == found["episode"] < 9


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 400), put=st.binary(min_size=1, max_size=6), over=st.integers(0, 6))
def test_no_bytes_are_a_traceback(at: int, put: bytes, over: int, tmp_path: Path) -> None:
    data = (json.dumps(row(0)) + "\n" + json.dumps(row(1)) + "\n").encode()
    (tmp_path / FILE).write_bytes(data[:at] + put + data[at + over :])
    try:
        found = read_rows(tmp_path, RULES)
    except KshotError as error:
        assert f"{FILE}, line " in str(error)
    else:
        assert all(RULES.fault(one) == "" for one in found.values())
