"""Contours that follow the image: a guided filter in the band where the decision changes.

He, Sun and Tang, "Guided image filtering" (TPAMI 2013, equations 5, 6 and 8); its coefficients change slowly, so they
are computed on a small copy and only applied at full size (He and Sun, "Fast guided filter", 2015). Away from the
band between classes the logits are those of plain interpolation: a filter has nothing to say there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.ops.geometry import Frame, to_pixels
from kshot.ops.smoothing import box_means
from kshot.refiners._band import band, enlarge, fit_size, shrink


@dataclass(frozen=True)
class Settings:
    """The filter's reach and how strong an edge must be."""

    radius: float = 1.0
    """Radius of the filter's window, patches."""
    epsilon: float = 0.004
    """Variance of grey values (0..1) below which a window counts as flat."""
    band: int = 1
    """How far from the decision the filter acts, patches."""
    side: int = 160
    """The coefficients are computed on a copy of about side x side pixels of area."""
    limit: float = 4.0
    """Logits are clamped to -limit..limit, so that one confident patch does not outvote its neighbours."""


def refine(logits: Tensor, frame: Frame, image: NDArray[np.uint8], settings: Settings) -> Tensor:
    """(N+1, gh, gw) logits to (N+1, h, w), with contours at the edges of the image (h, w, 3), or (h, w), uint8."""
    plain = to_pixels(logits, frame)
    near = band(logits, settings.band)
    if not bool(near.any()):
        return plain
    small_hw = fit_size(frame.size_hw, settings.side)
    # The background's logits are zero, and the filter would leave them so; a class that wins nowhere has no contour.
    rows = [row for row in logits.argmax(0).unique().tolist() if row > 0]
    coarse = to_pixels(logits[rows].clamp(-settings.limit, settings.limit), frame, small_hw)  # (n, sh, sw)
    patch = frame.patch * (small_hw[0] / frame.inner_hw[0] * small_hw[1] / frame.inner_hw[1]) ** 0.5
    radius = max(1, round(settings.radius * patch))
    grey = Image.fromarray(image).convert("L")
    slope, offset = _coefficients(_values(grey, small_hw), coarse, radius, settings.epsilon)
    guide = _values(grey, frame.size_hw)
    filtered = torch.addcmul(enlarge(offset, frame.size_hw), enlarge(slope, frame.size_hw), guide)
    weight = to_pixels(near, frame)
    for row, values in zip(rows, filtered, strict=True):
        plain[row].lerp_(values, weight)
    return plain


def _values(grey: Image.Image, size_hw: tuple[int, int]) -> Tensor:
    """Grey values (h, w) in 0..1 of an image at a size."""
    return shrink(grey, size_hw).float().div_(255)


def _coefficients(guide: Tensor, planes: Tensor, radius: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Slope and offset (n, sh, sw) of each plane as a linear function of the guide (sh, sw) in each window."""
    count = len(planes)
    means = box_means(torch.cat([guide[None], guide[None] ** 2, planes, planes * guide]), radius)
    mean, square, of_planes, products = means.split([1, 1, count, count])
    slope = (products - mean * of_planes) / (square - mean**2 + epsilon)
    smooth = box_means(torch.cat([slope, of_planes - slope * mean]), radius)
    return smooth[:count], smooth[count:]
