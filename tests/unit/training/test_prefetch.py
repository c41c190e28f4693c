"""The prefetcher: order, errors, and the end of its thread."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.errors import TrainingError
from kshot.training.prefetch import Prefetcher


@settings(max_examples=20, deadline=None)
@given(items=st.lists(st.integers(), max_size=30))
def test_it_keeps_items_and_order(items: list[int]) -> None:
    with Prefetcher(iter(items)) as batches:
        assert list(batches) == items


def test_it_makes_one_item_while_another_is_used() -> None:
    made: list[int] = []

    def items():
        for n in range(5):
            made.append(n)
            yield n, threading.current_thread().name

    with Prefetcher(items()) as batches:
        for n, thread in batches:
            until = time.monotonic() + 5
            while len(made) < min(n + 2, 5) and time.monotonic() < until:
                time.sleep(0.001)
            assert made == list(range(min(n + 2, 5))) and thread.startswith("batches")


def test_it_hands_errors_on_where_they_belong() -> None:
    def items():
        yield 1
        yield 2
        raise TrainingError("photo 3 is gone")

    seen = []
    with pytest.raises(TrainingError, match="photo 3 is gone"), Prefetcher(items()) as batches:
        for item in batches:
            seen += [item]
    assert seen == [1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_it_ends_with_who_reads_it() -> None:
    with pytest.raises(KeyError), Prefetcher(iter(range(100))) as batches:
        for _ in batches:
            raise KeyError("stop")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
