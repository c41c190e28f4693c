"""Strips of labels that wait on the disk."""

from pathlib import Path

import numpy as np
import pytest

from kshot.errors import OutputError
from kshot.io.strips import StripStore


def test_strips_come_back_as_often_as_asked_and_leave_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    strips = [rng.integers(0, 3, (rows, 17), dtype=np.uint8) for rows in (4, 1, 64)]
    with StripStore(tmp_path) as store:
        for strip in strips:
            store.append(strip)
        for _ in range(2):
            assert all(np.array_equal(*pair) for pair in zip(store, strips, strict=True))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="gone: cannot be written"):
        StripStore(tmp_path / "gone")
