"""Several images inferred at once on a CPU, each with a share of PyTorch's threads.

An answer is many small tensors: threads that share one gain little, and where other work keeps a core busy, all of them
wait for the slowest. So a folder is done faster with one thread for an image, and as many images at once as there are
threads.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Made = TypeVar("Made")
_MOST = 8
_MIN_IMAGES = 16  # whose gain pays for setting up an inference engine anew, for the smaller number of threads


def lane_count(images: int) -> int:
    """Lanes for a folder of so many images: one for each of PyTorch's threads, up to 8; for a few images one."""
    return min(_MOST, torch.get_num_threads()) if images >= _MIN_IMAGES else 1


class Lanes:
    """Threads that infer one image each; from the first image until `close`, PyTorch's threads are divided among them.

    count: how many; with one, the caller's thread infers.
    """

    def __init__(self, count: int):
        self.count, self._threads = count, torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, infer: Callable[[Made], Made], made: Made) -> "Future[Made]":
        """Infer an image in one of the threads."""
        if self._pool is None:
            torch.set_num_threads(self._share)
            self._pool = ThreadPoolExecutor(self.count, "kshot-infer", torch.set_num_threads, (self._share,))
        return self._pool.submit(infer, made)

    @contextmanager
    def all_threads(self) -> Iterator[None]:
        """Within it the caller's thread has them all; nothing else may be inferred meanwhile."""
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            if self._pool is not None:
                torch.set_num_threads(self._share)

    def close(self) -> None:
        """End the threads, and give PyTorch its own back."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    @property
    def _share(self) -> int:
        return max(1, self._threads // self.count)
