"""A run's records come from its manifest and from those of shards that still run, the last of each image."""

from pathlib import Path

import pytest

from kshot.errors import SettingError
from kshot.io.manifest import (
    DONE,
    EMPTY,
    FAILED,
    MANIFEST,
    SETTINGS,
    Record,
    read_manifest,
    read_settings,
    write_records,
)


def test_records_are_written_by_name_and_the_last_of_each_image_counts(tmp_path: Path) -> None:
    records: list[Record] = [{"input": "b.jpg", "status": FAILED}, {"input": "a.jpg", "status": DONE}]
    write_records(tmp_path / MANIFEST, records)
    assert [record["input"] for record in read_manifest(tmp_path)] == ["a.jpg", "b.jpg"]
    write_records(tmp_path / "manifest-1-of-2.jsonl", [{"input": "b.jpg", "status": EMPTY}])
    assert {record["input"]: record["status"] for record in read_manifest(tmp_path)} == {"a.jpg": DONE, "b.jpg": EMPTY}


def test_a_shard_alone_is_a_run_and_a_folder_without_manifest_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no manifest\.jsonl"):
        read_manifest(tmp_path)
    write_records(tmp_path / "manifest-2-of-2.jsonl", [{"input": "a.jpg", "status": DONE}])
    assert len(read_manifest(tmp_path)) == 1


def test_lines_that_are_no_records_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ['{"input": 1, "status": "done"}', '{"input": "a.jpg", "status": "odd"}', '{"input": "a.jpg"}', '{"inp']
    (tmp_path / MANIFEST).write_text("\n".join(lines))
    assert read_manifest(tmp_path) == [] and caplog.text.count("damaged line") == 4


def test_settings_that_are_damaged_are_empty(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text("{")
    assert read_settings(tmp_path) == {}
