"""Objects that touch are taken apart; what is split off is no speck."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kshot.ops.components import connected_components, split


def discs(*circles: tuple[int, int, int]) -> np.ndarray:
    rows, columns = np.mgrid[:60, :120]
    masks = [(rows - y) ** 2 + (columns - x) ** 2 < radius**2 for y, x, radius in circles]
    return np.any(masks, axis=0)


def test_a_small_basin_goes_to_its_neighbours() -> None:
    mask = discs((30, 30, 20), (30, 66, 20), (30, 91, 6))  # the third, 100 pixels of its own, hangs on the second
    assert len(list(split(mask, method="watershed"))) == 3
    parts = list(split(mask, method="watershed", least=150))
    assert [int(inside.sum()) > 1000 for _, inside in parts] == [True, True]
    assert sum(int(inside.sum()) for _, inside in parts) == mask.sum()


def test_a_component_that_is_small_as_a_whole_stays_whole() -> None:
    mask = discs((30, 30, 5), (30, 38, 5))
    assert len(list(split(mask, method="watershed"))) == 2
    assert len(list(split(mask, method="watershed", least=10_000))) == 1


@settings(deadline=None, max_examples=60)
@given(mask=arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))), least=st.integers(0, 30))
def test_parts_are_disjoint_make_up_the_mask_and_are_large_enough(mask: np.ndarray, least: int) -> None:
    total = np.zeros(mask.shape, int)
    for place, inside in split(mask, method="watershed", least=least):
        total[place] += inside
    assert np.array_equal(total, mask.astype(int))
    for place, inside in connected_components(mask):
        alone = np.zeros_like(mask)
        alone[place] = inside
        areas = [int(part.sum()) for _, part in split(alone, method="watershed", least=least)]
        assert len(areas) == 1 or min(areas) >= least
