"""Rows of labels that wait on the disk, compressed, until they are read again in the same order."""

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from kshot.errors import OutputError


class StripStore:
    """A file without a name in `folder`, which is gone when the block ends. Raises `OutputError` when it is full."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._shapes: list[tuple[int, ...]] = []
        self._bytes: list[int] = []
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed by __exit__
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error

    def __enter__(self) -> "StripStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def append(self, strip: NDArray[np.uint8]) -> None:
        """Keep the next rows (r, w)."""
        data = zlib.compress(strip.tobytes(), 1)
        try:
            self._file.write(data)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
        self._shapes.append(strip.shape)
        self._bytes.append(len(data))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        self._file.seek(0)
        for shape, count in zip(self._shapes, self._bytes, strict=True):
            yield np.frombuffer(zlib.decompress(self._file.read(count)), np.uint8).reshape(shape)
