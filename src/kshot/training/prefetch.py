"""Make the next batch while the model learns from the present one."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

_END = object()


class Prefetcher:
    """An iterator over the same items that computes one item ahead, in a thread.

    One thread, not a pool of processes: decoding and resizing release Python's lock, and the order stays as it is.
    """

    def __init__(self, items: Iterator[Any]):
        self.items = items

    def __enter__(self) -> Self:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.next: Future[Any] = self.pool.submit(next, self.items, _END)
        return self

    def __iter__(self) -> Iterator[Any]:
        while (item := self.next.result()) is not _END:
            self.next = self.pool.submit(next, self.items, _END)
            yield item

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(cancel_futures=True)
