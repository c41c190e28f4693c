"""The newest frame of a live source, and cameras that are not there."""

import threading

import pytest

from kshot.errors import ImageReadError
from kshot.io.videos import camera, newest


def test_what_came_meanwhile_is_dropped_and_the_last_is_given() -> None:
    all_taken = threading.Event()

    def source():
        yield from range(5)
        all_taken.set()

    given = newest(source())
    first = next(given)
    assert all_taken.wait(30)
    rest = list(given)
    assert len(rest) <= 1 and [first, *rest][-1] == 4


def test_an_error_of_the_source_comes_after_what_it_gave() -> None:
    def source():
        yield 1
        raise ImageReadError("unplugged")

    given = newest(source())
    assert next(given) == 1
    with pytest.raises(ImageReadError, match="unplugged"):
        next(given)


def test_a_camera_that_is_not_there_is_named() -> None:
    with pytest.raises(ImageReadError, match="camera 97: cannot be opened"):
        next(camera(97))
