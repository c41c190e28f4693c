"""Means over windows of planes, as products with banded matrices: as quick as scipy's filters, which import slowly."""

from functools import lru_cache

import torch
from torch import Tensor

_REACH = 3.0  # standard deviations at which a Gaussian ends


def box_means(planes: Tensor, radius: int) -> Tensor:
    """Mean of planes (..., h, w) over windows of 2 radius + 1 pixels; the border goes on as it ends."""
    height, width = planes.shape[-2:]
    return _box(height, radius).to(planes) @ planes @ _box(width, radius).to(planes).T


def gaussian_means(planes: Tensor, scale: float, step: int = 1) -> Tensor:
    """Every `step`-th pixel of planes (..., h, w) after a Gaussian; scale: standard deviation in pixels.

    The border is mirrored.
    """
    height, width = planes.shape[-2:]
    return _gaussian(height, scale, step).to(planes) @ planes @ _gaussian(width, scale, step).to(planes).T


@lru_cache(maxsize=32)
def _box(pixels: int, radius: int) -> Tensor:
    """(pixels, pixels): weight of each pixel in the window around each; rows sum to 1."""
    places = (torch.arange(pixels)[:, None] + torch.arange(-radius, radius + 1)).clamp(0, pixels - 1)
    return torch.zeros(pixels, pixels).scatter_add_(1, places, torch.full(places.shape, 1 / (2 * radius + 1)))


@lru_cache(maxsize=32)
def _gaussian(pixels: int, scale: float, step: int) -> Tensor:
    """(pixels / step, pixels): the same, for a window of Gaussian weights around every `step`-th pixel."""
    reach = int(_REACH * scale + 0.5)
    window = torch.arange(-reach, reach + 1)
    weights = (-0.5 * (window.double() / scale) ** 2).exp()
    places = (torch.arange(0, pixels, step)[:, None] + window) % (2 * pixels)
    places = torch.minimum(places, 2 * pixels - 1 - places)
    rows = torch.zeros(len(places), pixels, dtype=torch.float64)
    return rows.scatter_add_(1, places, (weights / weights.sum()).expand(places.shape)).float()
