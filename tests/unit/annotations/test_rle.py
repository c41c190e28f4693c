"""Run lengths against counts by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kshot.annotations import rle
from kshot.annotations.model import paint
from kshot.types import IGNORE

MASK = np.array([[0, 1, 1], [0, 0, 1]], bool)  # column by column: 2 outside, 1 inside, 1 outside, 2 inside
MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))


def test_counts_go_column_by_column_in_coco_and_row_by_row_elsewhere() -> None:
    encoded = rle.encode(MASK)
    assert rle.decode_counts(encoded["counts"].decode()) == [2, 1, 1, 2]
    assert rle.encode_counts([2, 1, 1, 2], (2, 3)) == encoded
    assert rle.row_counts(MASK).tolist() == [1, 2, 2, 1] and rle.row_counts(~MASK).tolist() == [0, 1, 2, 2, 1]
    assert rle.area(encoded) == 3 and rle.box_xywh(encoded) == [1, 0, 2, 2]


@given(mask=MASKS)
def test_every_way_into_run_lengths_gives_the_same(mask: np.ndarray) -> None:
    encoded = rle.encode(mask)
    np.testing.assert_array_equal(rle.decode(encoded), mask)
    assert rle.encode_at(mask, 0, 0, mask.shape) == encoded
    assert rle.encode_counts(rle.decode_counts(encoded["counts"].decode()), mask.shape) == encoded
    assert rle.merge([encoded, encoded]) == encoded
    if mask.any():
        left, top, crop = rle.decode_crop(encoded)
        place = (slice(top, top + crop.shape[0]), slice(left, left + crop.shape[1]))
        np.testing.assert_array_equal(crop, mask[place])
        assert rle.encode_crop(crop, place, mask.shape) == encoded


def test_a_polygon_of_whole_corners_holds_its_pixels() -> None:
    square = rle.decode(rle.encode_polygon([[1, 0], [3, 0], [3, 2], [1, 2]], (4, 5)))
    assert square[:2, 1:3].all() and square.sum() == 4


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_counts_that_do_not_add_up_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match=f"its RLE covers {sum(counts)} pixels, but its image has 100"):
        rle.encode_counts(counts, (10, 10))


def test_painting_puts_ignored_pixels_below_and_small_masks_above() -> None:
    whole, left, corner = np.ones((2, 3), bool), np.zeros((2, 3), bool), np.zeros((2, 3), bool)
    left[:, :2], corner[0, 0] = True, True
    layers = [(rle.encode(corner), 2), (rle.encode(left), 1), (rle.encode(whole), IGNORE)]
    np.testing.assert_array_equal(paint(layers, (2, 3)), [[2, 1, 255], [1, 1, 255]])
