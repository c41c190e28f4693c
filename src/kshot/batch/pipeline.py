"""Read ahead, infer, write behind: three steps that overlap, with results in the order of the inputs."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def overlapped(
    items: Iterable[Item | None],
    read: Callable[[Item], Made],
    infer: Callable[[Made], Made],
    write: Callable[[Made], Made],
    workers: int = 1,
) -> Generator[Made]:
    """`write(infer(read(item)))` of each item, in their order.

    `infer` runs in the caller's thread, one item at a time, because it keeps all cores (or the GPU) busy by itself;
    `workers` threads read and as many write beside it, and never more than `workers` items wait between two steps, so
    memory does not grow with the items. 0 does one step after the other. A None among the items says that the next
    may take long: what is on its way is finished first. Whatever a step raises ends the iteration.
    """
    if workers == 0:
        yield from (write(infer(read(item))) for item in items if item is not None)
        return
    readers = ThreadPoolExecutor(workers, "kshot-read")
    writers = ThreadPoolExecutor(workers, "kshot-write")
    reading: deque[Future[Made]] = deque()
    writing: deque[Future[Made]] = deque()

    def finished(at_most: int) -> Iterator[Made]:
        while writing and (len(writing) > at_most or writing[0].done()):
            yield writing.popleft().result()

    def moved(at_most: int) -> Iterator[Made]:
        while len(reading) > at_most:
            made = infer(reading.popleft().result())
            # Room is made before the next is handed over: a prediction is far larger than its image.
            yield from finished(workers)
            writing.append(writers.submit(write, made))

    try:
        for item in items:
            if item is None:
                yield from moved(0)
                yield from finished(0)
            else:
                reading.append(readers.submit(read, item))
                yield from moved(workers)
        yield from moved(0)
        yield from finished(0)
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown(cancel_futures=True)
