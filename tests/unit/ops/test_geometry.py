"""Pixels and patches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.errors import SettingError, ShapeError
from kshot.ops.geometry import FeatureMap, Frame, coverage, to_grid, to_pixels

sides = st.integers(1, 300)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), patch=st.sampled_from([8, 14, 16]))
def test_a_frame_has_constant_cost_and_keeps_the_aspect(height: int, width: int, patch: int) -> None:
    frame = Frame.fit((height, width), 448, patch)
    rows, columns = frame.grid_hw
    assert rows * columns <= 1.25 * (448 / patch) ** 2
    assert frame.padded_hw[0] - frame.inner_hw[0] < patch and frame.padded_hw[1] - frame.inner_hw[1] < patch
    if max(height / width, width / height) < 8:
        assert math.prod(frame.inner_hw) == pytest.approx(448**2, rel=0.03)
        assert frame.inner_hw[0] / frame.inner_hw[1] == pytest.approx(height / width, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides, value=st.floats(-5, 5))
def test_a_constant_stays_constant_both_ways(height: int, width: int, value: float) -> None:
    frame = Frame.fit((height, width), 64, 8)
    down = to_grid(torch.full((height, width), value), frame)
    assert torch.allclose(down, torch.full(frame.grid_hw, value), atol=1e-4)
    assert torch.allclose(to_pixels(down, frame), torch.full((height, width), value), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides)
def test_to_grid_keeps_the_area_of_a_mask(height: int, width: int) -> None:
    frame = Frame.fit((height, width), 64, 8)
    mask = (torch.rand(height, width) > 0.5).float()
    part = coverage(frame)
    assert float((to_grid(mask, frame) * part).sum() / part.sum()) == pytest.approx(float(mask.mean()), abs=1e-4)


def test_hand_counted_cells() -> None:
    frame = Frame((4, 6), (4, 6), 4)  # 2 cells across, the second half padding
    mask = torch.zeros(4, 6)
    mask[:, 2:] = 1
    assert to_grid(mask, frame).tolist() == [[0.5, 1.0]]
    assert coverage(frame).tolist() == [[1.0, 0.5]]


def test_to_pixels_is_bilinear_between_centres() -> None:
    frame = Frame((1, 8), (1, 8), 4)
    row = to_pixels(torch.tensor([[0.0, 1.0]]), frame)[0]
    assert row.tolist() == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


def test_to_pixels_agrees_with_torch_where_torch_can() -> None:
    planes = torch.randn(3, 5, 7)
    frame = Frame((80, 112), (40, 56), 8)
    expected = torch.nn.functional.interpolate(planes[None], (80, 112), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(to_pixels(planes, frame), expected, atol=1e-5, rtol=1e-5)


def test_flipping_commutes_where_nothing_is_padded() -> None:
    frame = Frame((50, 70), (64, 96), 16)
    planes = torch.randn(2, *frame.grid_hw)
    torch.testing.assert_close(to_pixels(planes.flip(-1), frame), to_pixels(planes, frame).flip(-1))


def test_patch_at_names_the_patch_under_a_point() -> None:
    frame = Frame((100, 200), (64, 128), 16)
    assert frame.patch_at(0, 0) == (0, 0)
    assert frame.patch_at(199.9, 99.9) == (3, 7)
    assert frame.patch_at(25.1, 24.9) == (0, 1)
    assert frame.patch_at(-5, 500) == (3, 0)


def test_a_size_under_one_patch_is_refused() -> None:
    with pytest.raises(SettingError, match="smaller than one patch"):
        Frame.fit((10, 10), 8, 16)


def test_a_feature_map_must_fit_its_frame() -> None:
    with pytest.raises(ShapeError, match=r"expected features \(c, \*\(4, 8\)\), got \(3, 4, 4\)"):
        FeatureMap(torch.zeros(3, 4, 4), Frame((64, 128), (64, 128), 16))
