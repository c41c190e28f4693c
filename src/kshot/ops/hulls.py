"""Convex hulls of pixels, which are squares; the hull of two regions together follows from their two hulls."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_Chain = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Hull:
    """The convex hull of at least one pixel, exact: two chains of corners (y, x) from top to bottom."""

    left: _Chain
    right: _Chain

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> "Hull":
        """That of all pixels of a mask (h, w)."""
        rows = np.flatnonzero(mask.any(1))
        return next(cls._between(rows, mask.argmax(1)[rows], mask.shape[1] - mask[:, ::-1].argmax(1)[rows], [0, None]))

    @classmethod
    def of_each(cls, labels: NDArray[np.int32]) -> "Iterator[Hull]":
        """Those of the labels 1, 2, ... of a map (h, w), which all are in it, in one pass over its pixels."""
        places = np.flatnonzero(labels)
        owners = labels.ravel()[places]
        order = np.argsort(owners, kind="stable")
        owners, (rows, columns) = owners[order], np.divmod(places[order], labels.shape[1])
        begins = np.flatnonzero((np.diff(owners, prepend=0) != 0) | (np.diff(rows, prepend=-1) != 0))
        ends = np.append(begins, len(rows))[1:] - 1  # of a label in a row
        cuts = np.flatnonzero(np.diff(owners[begins], prepend=0))
        return cls._between(rows[begins], columns[begins], columns[ends] + 1, [*cuts.tolist(), None])

    @classmethod
    def _between(
        cls, rows: NDArray[np.int64], first: NDArray[np.int64], after: NDArray[np.int64], cuts: Sequence[int | None]
    ) -> "Iterator[Hull]":
        """Of regions, each from one cut to the next: (n,) rows, ascending in a region, columns of its first pixel in
        the row, and columns after its last one."""
        edges = np.stack([rows, rows + 1], 1).ravel().tolist()
        left, right = (list(zip(edges, np.repeat(side, 2).tolist(), strict=True)) for side in (first, after))
        for begin, end in pairwise(cuts):
            own = slice(2 * (begin or 0), end and 2 * end)
            yield cls(_turning(left[own], -1), _turning(right[own], 1))

    def joined(self, other: "Hull") -> "Hull":
        """The hull of both."""
        return Hull(_turning(sorted(self.left + other.left), -1), _turning(sorted(self.right + other.right), 1))

    @property
    def area(self) -> float:
        """In pixels."""
        corners = [*self.right, *reversed(self.left)]  # down the right side, and up the left one
        twice, (y0, x0) = 0, corners[-1]
        for y, x in corners:
            twice += x0 * y - x * y0
            y0, x0 = y, x
        return abs(twice) / 2


def _turning(points: Iterable[tuple[int, int]], side: int) -> _Chain:
    """Of points (y, x) from top to bottom the convex chain (Andrew's) on one side: 1 right, -1 left."""
    chain: list[tuple[int, int]] = []
    for y, x in points:
        while len(chain) > 1:
            (y0, x0), (y1, x1) = chain[-2], chain[-1]
            if side * ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) > 0:
                break
            chain.pop()
        chain.append((y, x))
    return tuple(chain)
