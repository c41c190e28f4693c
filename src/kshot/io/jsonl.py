"""Files of JSON lines that survive a kill: a line is there whole, or it counts as not there.

The manifest of a folder run, the rows of an evaluation and the log of a training are such files.
"""

import contextlib
import errno
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from kshot.errors import OutputError
from kshot.io.atomic import write_text

log = logging.getLogger(__name__)
Fits: TypeAlias = Callable[[dict[str, Any]], bool]


class LineWriter:
    """A file that grows by whole lines, also where the disk fills up.

    A half line that a killed process left at the end is cut off at first, because it would swallow the next one.
    One that is removed after its first line is not made again: other files went with it.
    compact: no spaces between the items of a line. Raises `OutputError`.
    """

    def __init__(self, path: Path, *, compact: bool = False):
        self.path, self.compact = path, compact
        self._begun = path.exists()
        if path.is_symlink():
            raise OutputError(f"{path}: a link, through which nothing is written; remove it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_half_line(path)
        except OSError as error:
            raise _refused(path, error) from error

    def append(self, value: Mapping[str, Any]) -> None:
        """Add a line, handed to the system in one piece. Raises `OutputError`, and leaves the file as it was then."""
        data = line_of(value, compact=self.compact).encode()
        try:
            if self._begun and not self.path.exists():
                raise FileNotFoundError(errno.ENOENT, "it was removed")
            with self.path.open("ab", buffering=0) as file:
                self._begun = True
                end = file.seek(0, 2)
                try:
                    if file.write(data) != len(data):  # a disk takes what fits, without an error
                        raise OSError("no space left on the disk")
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            raise _refused(self.path, error) from error


class LineReader:
    """A file that another process appends to; each `read` gives the lines that are new. fits: as in `read_lines`."""

    def __init__(self, path: Path, fits: Fits = bool):
        self.path, self.fits = path, fits
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """The lines since the last call, without one that has no end yet. Raises `OSError`."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            whole, end, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(end)
        return list(_objects(self.path, whole, self.fits))


def read_lines(path: Path, fits: Fits = bool) -> list[dict[str, Any]]:
    """The objects of a file in their order; none when there is no such file.

    A line that is damaged, or that `fits` says no to, is left out with a warning. Raises `OSError`.
    """
    try:
        return list(_objects(path, path.read_bytes(), fits))
    except FileNotFoundError:
        return []


def write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of these lines atomically. Raises `OutputError`."""
    write_text(path, "".join(map(line_of, values)))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty when the file is missing or damaged, the latter with a warning."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s: left out (%s)", path, error)
        return {}
    return value if isinstance(value, dict) else {}


def line_of(value: Mapping[str, Any], *, compact: bool = False) -> str:
    """An object as one line of ASCII, its end included."""
    return json.dumps(value, separators=(",", ":") if compact else None) + "\n"


def _objects(path: Path, data: bytes, fits: Fits) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and fits(value):
            yield value
        else:
            log.warning("%s: a damaged line was left out", path)


def _cut_half_line(path: Path) -> None:
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")
