"""The next batch is made while this one is learned from."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

_END = object()


class Ahead:
    """An iterator that is always one item ahead of who reads it, in a thread of its own.

    One thread and not a pool of processes: decoding and resizing release Python's lock, and order is kept for free.
    """

    def __init__(self, items: Iterator[Any]):
        self.items = items

    def __enter__(self) -> Self:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.waiting: Future[Any] = self.pool.submit(next, self.items, _END)
        return self

    def __iter__(self) -> Iterator[Any]:
        while (item := self.waiting.result()) is not _END:
            self.waiting = self.pool.submit(next, self.items, _END)
            yield item

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(cancel_futures=True)
