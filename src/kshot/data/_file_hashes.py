"""What the files of a data set hold, by their SHA-256: whether a run goes on over the same data.

A file is hashed once. Its hash is kept beside the areas, and holds as long as the file's size, its times of writing and
of any change (which no tool sets back) and its place on the disk are the same. A file that was younger than two
seconds when it was hashed is not kept: a second change may have fallen into the same tick of the clock.
"""

import csv
import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from kshot.data._areas import warn_once
from kshot.errors import DatasetError, OutputError
from kshot.io.atomic import write_text
from kshot.io.csv_rows import csv_rows, csv_text

_SETTLED_NS = 2 * 10**9
_Stamp = tuple[str, ...]


class FileHash(NamedTuple):
    """A file of a data set; sha256 is empty where it was not asked for."""

    path: str
    """From the data set's root, with forward slashes."""
    size: int
    """Bytes."""
    sha256: str


def hash_files(root: Path, hashed: Iterable[Path], listed: Iterable[Path], kept: Path | None) -> tuple[FileHash, ...]:
    """The files, sorted by path: `hashed` with their hashes, `listed` with their sizes alone where not among those.

    kept: a CSV of hashes that are known, made or extended here. Raises `DatasetError` for a file that cannot be read.
    """
    wanted = set(hashed)
    known = _read(kept) if kept else {}
    fresh: dict[str, tuple[_Stamp, str]] = {}

    def of(path: Path) -> FileHash:
        name = _name(path, root)
        try:
            status = path.stat()
            if path not in wanted:
                return FileHash(name, status.st_size, "")
            stamp = _stamp(status)
            found = known.get(name)
            if found is not None and found[0] == stamp:
                return FileHash(name, status.st_size, found[1])
            begun = time.time_ns()
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if stamp == _stamp(path.stat()) and max(status.st_mtime_ns, status.st_ctime_ns) < begun - _SETTLED_NS:
                fresh[name] = (stamp, sha256)
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
        return FileHash(name, status.st_size, sha256)

    with ThreadPoolExecutor(max_workers=4) as pool:
        files = sorted(pool.map(of, sorted(wanted.union(listed))))
    if kept and fresh and os.name != "nt":  # Windows has no time that changes with every change
        _write(kept, known | fresh)
    return tuple(files)


def _name(path: Path, root: Path) -> str:
    name = Path(os.path.relpath(path, root)).as_posix()
    return name.encode("utf-8", "backslashreplace").decode()


def _stamp(status: os.stat_result) -> _Stamp:
    numbers = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
    return tuple(map(str, numbers))


def _read(path: Path) -> dict[str, tuple[_Stamp, str]]:
    """The hashes that are known; none when the file is missing or damaged."""
    try:
        body, _, checksum = path.read_text(encoding="utf-8").rpartition("end,")
        if _checksum(body) != checksum.strip():
            return {}
        return {name: (tuple(stamp), sha256) for name, sha256, *stamp in csv_rows(body)}
    except (OSError, ValueError, csv.Error):
        return {}


def _write(path: Path, known: dict[str, tuple[_Stamp, str]]) -> None:
    body = csv_text((name, sha256, *stamp) for name, (stamp, sha256) in sorted(known.items()))
    try:
        write_text(path, f"{body}end,{_checksum(body)}\n")
    except OutputError as error:
        warn_once(path.parent, str(error))


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
