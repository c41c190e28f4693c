"""Convex hulls are those of all corners of the pixels, and of two regions that of both."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import ConvexHull

from kshot.ops.hulls import Hull


def area_of(mask: np.ndarray) -> float:
    """By Qhull."""
    return float(ConvexHull(np.concatenate([np.argwhere(mask) + corner for corner in np.ndindex(2, 2)])).volume)


@settings(deadline=None, max_examples=60)
@given(labels=arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
def test_hulls_hold_their_pixels_and_no_more(labels: np.ndarray) -> None:
    labels = np.unique(np.append(0, labels), return_inverse=True)[1][1:].reshape(labels.shape).astype(np.int32)
    found = list(Hull.of_each(labels))
    assert len(found) == labels.max()
    for number, hull in enumerate(found, start=1):
        own = Hull.of(labels == number)
        assert (hull.left, hull.right) == (own.left, own.right)
        assert abs(hull.area - area_of(labels == number)) < 1e-9
    for number, (one, other) in enumerate(pairwise(found), start=1):
        both = one.joined(other)
        assert both.area == Hull.of((labels == number) | (labels == number + 1)).area


def test_the_corners_of_a_hull_do_not_grow_with_what_was_joined() -> None:
    """A join looks at nothing else, so that a region of half an image may take in thousands of fragments."""
    square = Hull.of(np.ones((1, 1), bool))
    for place in np.ndindex(30, 30):
        mask = np.zeros((30, 30), bool)
        mask[place] = True
        square = square.joined(Hull.of(mask))
    assert square.area == 900 and len(square.left) + len(square.right) <= 6
