"""Where supports are cropped, by hand and as laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshot.ops.support_crops import Window, support_windows


def shown(size_hw: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        # 1.2 times and twice the object, around its middle
        (shown((400, 600), (180, 280, 240, 340)), [(170, 290, 230, 350), (130, 330, 190, 390)]),
        (shown((400, 600), (0, 100, 0, 60)), [(0, 120, 0, 120), (0, 200, 0, 200)]),  # moved into the image, not cut
        (shown((400, 600), (390, 400, 590, 600)), [(304, 400, 504, 600)]),  # not below 96 pixels, and each once
        # all objects in one, at most as high as the image
        (shown((400, 600), (100, 110, 100, 110), (190, 200, 290, 300)), [(30, 270, 80, 320), (0, 400, 0, 400)]),
        (shown((400, 600), (100, 350, 10, 590)), []),  # almost the whole image
        (shown((50, 50), (20, 21, 20, 21)), []),  # a small image is seen whole
        (shown((400, 600)), []),  # nothing shown
    ],
)
def test_windows_by_hand(mask: np.ndarray, expected: list[tuple[int, int, int, int]]) -> None:
    assert support_windows(mask) == tuple(Window(*window) for window in expected)


@given(st.data())
def test_a_window_holds_all_that_is_shown_and_lies_in_the_image(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask = shown((height, width), (top, bottom, left, right))
    for window in support_windows(mask):
        check_window(window, mask, (top, bottom, left, right))
    turned = support_windows(mask.T)
    assert turned == tuple(Window(w.left, w.right, w.top, w.bottom) for w in support_windows(mask))


def check_window(window: Window, mask: np.ndarray, box: tuple[int, int, int, int]) -> None:
    (top, bottom, left, right), (height, width) = box, mask.shape
    assert 0 <= window.top <= top < bottom <= window.bottom <= height
    assert 0 <= window.left <= left < right <= window.right <= width
    assert mask[window.slices].sum() == mask.sum()
    assert mask[window.slices].shape == window.size_hw


def test_moved_marks() -> None:
    window = Window(10, 30, 20, 60)
    np.testing.assert_array_equal(window.moved(np.array([[20.0, 10], [25, 30]])), [[0, 0], [5, 20]])
    np.testing.assert_array_equal(window.moved(np.array([[20.0, 10, 60, 30]])), [[0, 0, 40, 20]])
