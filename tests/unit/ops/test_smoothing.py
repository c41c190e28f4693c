"""Means over windows are those of scipy's filters."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from kshot.ops.smoothing import box_means, gaussian_means


@pytest.mark.parametrize("size_hw", [(17, 40), (3, 9), (1, 5)])
@pytest.mark.parametrize("radius", [1, 4])
def test_box_means_are_those_of_scipy(size_hw: tuple[int, int], radius: int) -> None:
    planes = np.random.default_rng(0).normal(size=(2, *size_hw)).astype(np.float32)
    window = 2 * radius + 1
    expected = ndimage.uniform_filter(planes, (0, window, window), mode="nearest")
    np.testing.assert_allclose(box_means(torch.from_numpy(planes), radius).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size_hw", [(17, 40), (3, 9), (1, 5)])
@pytest.mark.parametrize(("scale", "step"), [(1, 1), (4, 2), (8, 4)])
def test_gaussian_means_are_those_of_scipy(size_hw: tuple[int, int], scale: int, step: int) -> None:
    planes = np.random.default_rng(1).normal(size=(2, *size_hw)).astype(np.float32)
    expected = ndimage.gaussian_filter(planes, (0, scale, scale), truncate=3)[:, ::step, ::step]
    np.testing.assert_allclose(gaussian_means(torch.from_numpy(planes), scale, step).numpy(), expected, atol=1e-6)
