"""A cache of how many pixels each class has in each image, so that the masks are read once.

A damaged cache counts as none. A folder that cannot be written costs a warning, once, and nothing else.
"""

import csv
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kshot.errors import OutputError
from kshot.io.atomic import write_text
from kshot.io.csv_rows import csv_rows, csv_text

_log = logging.getLogger(__name__)


class ImageClassPair(NamedTuple):
    """A class in an image; area: its pixels in the label map."""

    image: str
    class_id: int
    area: int


def read_areas(path: Path) -> tuple[ImageClassPair, ...] | None:
    """The pairs of a CSV; None when there is none or it is damaged."""
    try:
        rows = csv_rows(path.read_text(encoding="utf-8"))
        if rows.pop() != ["end", str(len(rows) - 1), ""]:
            return None
        return tuple(ImageClassPair(image, int(class_id), int(area)) for image, class_id, area in rows[1:])
    except (OSError, ValueError, IndexError, csv.Error):
        return None


def write_areas(path: Path, pairs: Sequence[ImageClassPair]) -> None:
    """Write the pairs as a CSV."""
    try:
        write_text(path, csv_text([("image", "class_id", "area"), *pairs, ("end", len(pairs), "")]))
    except OutputError as error:
        warn_once(path.parent, str(error))


@cache
def warn_once(folder: Path, reason: str) -> None:
    """Say that a folder takes no cache, the first time."""
    _log.warning("what was read of the masks is not cached, and is read again next time: %s", reason)
