"""Lines of JSON are there whole or not at all, whatever kills the process or fills the disk."""

from pathlib import Path

import pytest

from kshot.errors import OutputError
from kshot.io.jsonl import LineReader, LineWriter, read_lines, read_object, write_lines


def test_a_line_that_does_not_fit_the_disk_leaves_no_half(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    writer = LineWriter(tmp_path / "some" / "lines.jsonl")
    writer.append({"input": "a.jpg"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))  # a write that crosses it is cut, as by a full disk
    try:
        with pytest.raises(OutputError, match="no space left"):
            writer.append({"input": "b.jpg", "why": "x" * 99})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert writer.path.read_text() == '{"input": "a.jpg"}\n'
    writer.append({"input": "c.jpg"})
    assert [line["input"] for line in read_lines(writer.path)] == ["a.jpg", "c.jpg"]


def test_a_half_line_of_a_killed_process_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2,"cut')
    LineWriter(path, compact=True).append({"a": 3, "b": [1, 2]})
    assert path.read_bytes() == b'{"a":1}\n{"a":3,"b":[1,2]}\n'


def test_a_folder_that_takes_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        LineWriter(tmp_path / "file" / "lines.jsonl")


def test_damaged_lines_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n[]\n{"b": 1}\n\xff\n' + b"[" * 100_000 + b'\n{"a": 2}\n{"a": 3}')
    assert read_lines(path, lambda line: "a" in line) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert caplog.text.count("a damaged line was left out") == 4
    assert read_lines(tmp_path / "none.jsonl") == []


def test_a_reader_gives_each_whole_line_once(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    write_lines(path, [{"a": 1}, {"a": 2}])
    reader = LineReader(path)
    assert reader.read() == [{"a": 1}, {"a": 2}]
    with path.open("a") as file:
        file.write('{"a": 3}\n{"a"')
    assert reader.read() == [{"a": 3}]
    with path.open("a") as file:
        file.write(": 4}\n")
    assert reader.read() == [{"a": 4}]
    assert reader.read() == []


def test_an_object_that_is_missing_or_damaged_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    assert read_object(path) == {}
    for text in ("{", "[1]", ""):
        path.write_text(text)
        assert read_object(path) == {}
    path.write_text('{"a": 1}')
    assert read_object(path) == {"a": 1}
