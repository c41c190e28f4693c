"""Episodes of made-up counts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from kshot.metrics import EpisodeCounts


def foreground_counts(intersection: ArrayLike, union: ArrayLike, classes: Sequence[int] | None = None) -> EpisodeCounts:
    """1-way episodes of given I and U of the foreground."""
    n = len(np.asarray(intersection))
    table = np.zeros((n, 8), np.int64)
    table[:, 0], table[:, 1] = np.arange(n), classes if classes is not None else 1
    table[:, 3], table[:, 5], table[:, 7] = intersection, intersection, union
    return EpisodeCounts.from_table(table, 1)
