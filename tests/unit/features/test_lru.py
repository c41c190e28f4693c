"""The bounded cache in memory."""

import numpy as np

from kshot.features.lru import BoundedCache


def test_it_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    cache = BoundedCache[np.ndarray](100, lambda value: value.nbytes)
    for n in range(5):
        cache.get(n, lambda: np.zeros(40, np.uint8))
    assert cache.bytes == 80
    assert cache.get(4, lambda: np.ones(40, np.uint8)).sum() == 0
    assert cache.get(0, lambda: np.ones(40, np.uint8)).sum() == 40
