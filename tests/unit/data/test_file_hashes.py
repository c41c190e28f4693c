"""The hashes of a data set's files: right whether they were kept or not, and kept only where that is safe."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from kshot.data._file_hashes import FileHash, hash_files
from kshot.errors import DatasetError


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    root = tmp_path / "data"
    root.mkdir()
    paths = [root / name for name in ("b.png", "a, b.jpg", "c\n.jpg")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def test_what_is_listed(files: list[Path], tmp_path: Path) -> None:
    found = hash_files(tmp_path / "data", files[:2], files, None)
    assert found == (
        FileHash("a, b.jpg", 8, hashlib.sha256(b"a, b.jpg").hexdigest()),
        FileHash("b.png", 5, hashlib.sha256(b"b.png").hexdigest()),
        FileHash("c\n.jpg", 6, ""),
    )
    files[0].unlink()
    with pytest.raises(DatasetError, match=r"b\.png: cannot be read"):
        hash_files(tmp_path / "data", files[:2], files, None)


def test_a_file_is_hashed_once_and_again_after_any_change(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kshot.data._file_hashes._SETTLED_NS", 0)
    kept = tmp_path / "cache" / "files.csv"
    time.sleep(0.05)  # a tick of the file system's clock
    first = hash_files(tmp_path / "data", files, files, kept)
    read: list[object] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: read.append(file) or digest(file, kind))
    assert hash_files(tmp_path / "data", files, files, kept) == first and not read
    before = files[0].stat()
    files[0].write_bytes(b"c.png")  # of the same length, and its time of writing set back
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    second = hash_files(tmp_path / "data", files, files, kept)
    assert len(read) == 1 and second[1].sha256 == hashlib.sha256(b"c.png").hexdigest()
    kept.write_text(kept.read_text().replace(second[1].sha256, "0" * 64))
    assert hash_files(tmp_path / "data", files, files, kept) == second and len(read) == 4


def test_the_hash_of_a_young_file_is_not_kept(files: list[Path], tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "files.csv"
    hash_files(tmp_path / "data", files, files, kept)
    assert not kept.exists()
