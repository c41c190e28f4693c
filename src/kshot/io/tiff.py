"""The directories of a TIFF, from their tags alone: how many pages a file has and what each holds.

Overviews and masks, which GeoTIFF keeps as directories of their own, are no pages. (TIFF 6.0, section 2; BigTIFF.)
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_MOST = 65_536  # directories; a file whose chain is longer, or bites its tail, is cut there
_WHOLE = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 13: ("I", 4), 16: ("Q", 8)}
_KIND, _WIDTH, _HEIGHT, _BITS, _COLOURS, _TURN, _BANDS, _SAMPLES = 254, 256, 257, 258, 262, 274, 277, 339
_REDUCED, _MASK = 1, 4
_FLOAT = 3


@dataclass(frozen=True)
class Page:
    """One page. place: of its directory in the file, from 0. bits: of a pixel of one band.

    colours: TIFF's PhotometricInterpretation. turn: the orientation tag. damaged: its directory cannot be read.
    """

    place: int
    size_hw: tuple[int, int] = (0, 0)
    bands: int = 1
    bits: int = 1
    colours: int = 1
    turn: int = 1
    floats: bool = False
    damaged: bool = False


def is_tiff(source: Any) -> bool:
    """Whether a path or bytes begin like a TIFF; a file that is not there does not."""
    try:
        with _file(source) as file:
            return _order(file.read(4)) is not None
    except (OSError, TypeError, ValueError):
        return False


def pages(source: Any) -> list[Page]:
    """The pages of a path or of bytes, in their order; none when it is no TIFF.

    Where the chain of directories breaks, the list ends with a damaged page.
    """
    found: list[Page] = []
    try:
        with _file(source) as file:
            found.extend(_pages(file))
    except (OSError, TypeError, ValueError):
        return found
    return found


@contextmanager
def _file(source: Any) -> Iterator[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    else:
        with Path(source).open("rb") as file:
            yield file


def _order(head: bytes) -> str | None:
    """The byte order of a TIFF's first four bytes, with a + for BigTIFF."""
    known = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<+", b"MM\0+": ">+"}
    return known.get(head)


def _pages(file: BinaryIO) -> Iterator[Page]:
    order = _order(file.read(4))
    if order is None:
        return
    big, order = order.endswith("+"), order[0]
    seen: set[int] = set()
    try:
        if big:
            file.seek(8)
        (start,) = _take(file, f"{order}{'Q' if big else 'I'}")
        while start and start not in seen and len(seen) < _MOST:
            seen.add(start)
            tags, start = _directory(file, start, order, big)
            if not tags.get(_KIND, 0) & (_REDUCED | _MASK):
                yield _page(len(seen) - 1, tags)
    except (struct.error, ValueError, OverflowError, KeyError):
        yield Page(max(0, len(seen) - 1), damaged=True)


def _directory(file: BinaryIO, start: int, order: str, big: bool) -> tuple[dict[int, int], int]:
    """The tags that are read here, and where the next directory begins."""
    file.seek(start)
    (count,) = _take(file, f"{order}{'Q' if big else 'H'}")
    if count > _MOST:
        raise ValueError("too many tags")
    entry = f"{order}HHQ8s" if big else f"{order}HHI4s"
    entries = [_take(file, entry) for _ in range(count)]
    (following,) = _take(file, f"{order}{'Q' if big else 'I'}")
    wanted = (_KIND, _WIDTH, _HEIGHT, _BITS, _COLOURS, _TURN, _BANDS, _SAMPLES)
    return {tag: _first(file, kind, many, held, order) for tag, kind, many, held in entries if tag in wanted}, following


def _first(file: BinaryIO, kind: int, count: int, held: bytes, order: str) -> int:
    """The first of a tag's whole numbers, which lie in the tag itself where they fit, else where it points."""
    letter, size = _WHOLE[kind]
    if size * count > len(held):
        (there,) = struct.unpack(f"{order}{'I' if len(held) == 4 else 'Q'}", held)
        file.seek(there)
        held = file.read(size)
    value: int = struct.unpack_from(f"{order}{letter}", held)[0]
    return value


def _page(place: int, tags: dict[int, int]) -> Page:
    return Page(
        place,
        (tags[_HEIGHT], tags[_WIDTH]),
        tags.get(_BANDS, 1),
        tags.get(_BITS, 1),
        tags.get(_COLOURS, 1),
        tags.get(_TURN, 1),
        tags.get(_SAMPLES, 1) == _FLOAT,
    )


def _take(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
