"""Pixels and patches: the only place that knows how an image lies on its grid of patches.

An image is resized with its aspect ratio kept, then padded at the right and the bottom to whole patches. Pixel centres
lie at half-integers, as with `align_corners=False`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kshot.errors import SettingError, ShapeError


@dataclass(frozen=True)
class Frame:
    """How one image lies on its grid of patches."""

    size_hw: tuple[int, int]
    """Height and width of the image, in pixels."""
    inner_hw: tuple[int, int]
    """Height and width of the resized image, in pixels."""
    patch: int
    """Side of a patch, in pixels of the resized image."""

    @classmethod
    def fit(cls, size_hw: tuple[int, int], size: int, patch: int) -> "Frame":
        """The frame of about `size` x `size` pixels of area with the aspect ratio of `size_hw`.

        Very long images are shrunk further, so that the number of patches never exceeds 1.25 times that of a square.
        """
        if size < patch:
            raise SettingError(f"size {size} is smaller than one patch of {patch} pixels; give at least {patch}")
        height, width = size_hw
        scale = size / math.sqrt(height * width)
        budget = 1.25 * (size / patch) ** 2
        for _ in range(8):  # a strip one patch high loses patches linearly, a block quadratically: a few rounds do
            frame = cls(size_hw, (max(1, round(height * scale)), max(1, round(width * scale))), patch)
            patches = frame.grid_hw[0] * frame.grid_hw[1]
            if patches <= max(budget, 1):
                return frame
            scale *= budget / patches
        return frame

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return math.ceil(self.inner_hw[0] / self.patch), math.ceil(self.inner_hw[1] / self.patch)

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Size in resized pixels with the padding."""
        return self.grid_hw[0] * self.patch, self.grid_hw[1] * self.patch

    def patch_at(self, x: float, y: float) -> tuple[int, int]:
        """(row, column) of the patch under the point x, y of the image; points outside go to the nearest."""
        rows, columns = self.grid_hw
        row = int(y * self.inner_hw[0] / self.size_hw[0] / self.patch)
        column = int(x * self.inner_hw[1] / self.size_hw[1] / self.patch)
        return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """What a backbone makes of one image. Raises `ShapeError` where the features do not fit the frame."""

    features: Tensor
    """(c, gh, gw) float: the patch tokens, each of unit length."""
    frame: Frame
    """Where the patches lie in the image."""
    identity: str = ""
    """Of the backbone that made it."""
    token: Tensor | None = None
    """(c,) of unit length: the image token, in the space of the patch tokens, where there is one."""
    objectness: Tensor | None = None
    """(gh, gw) in 0..1: how likely each patch shows an object, where the backbone predicts it."""

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or tuple(self.features.shape[1:]) != self.frame.grid_hw:
            raise ShapeError(f"expected features (c, *{self.frame.grid_hw}), got {tuple(self.features.shape)}")

    @property
    def tokens(self) -> Tensor:
        """(gh * gw, c): the patch tokens in reading order."""
        return self.features.flatten(1).T

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.frame.grid_hw


def to_grid(planes: Tensor, frame: Frame) -> Tensor:
    """Mean of pixel planes (..., h, w) over the part of the image in each patch: (..., gh, gw)."""
    rows = _areas(frame.size_hw[0], frame.inner_hw[0], frame.patch).to(planes)
    columns = _areas(frame.size_hw[1], frame.inner_hw[1], frame.patch).to(planes)
    return rows @ planes @ columns.T


def to_pixels(planes: Tensor, frame: Frame, out_hw: tuple[int, int] | None = None) -> Tensor:
    """Bilinear interpolation of grid planes (..., gh, gw) to the image (..., h, w), without the padding.

    out_hw: (h, w) of a resized copy of the image, by default of the image itself.
    """
    height, width = out_hw or frame.size_hw
    rows = _blend(height, frame.inner_hw[0], frame.patch).to(planes)
    columns = _blend(width, frame.inner_hw[1], frame.patch).to(planes)
    return rows @ planes @ columns.T


def coverage(frame: Frame) -> Tensor:
    """(gh, gw) in 0..1: the fraction of each patch that is image and not padding."""
    sides = []
    for inner, patches in zip(frame.inner_hw, frame.grid_hw, strict=True):
        side = torch.ones(patches)
        side[-1] = inner / frame.patch - (patches - 1)
        sides.append(side)
    return sides[0][:, None] * sides[1]


def patch_centres(frame: Frame) -> Tensor:
    """(gh, gw, 2): x and y of the centre of each patch, in pixels of the image, moved into it from the padding."""
    sides = []
    for pixels, inner, patches in zip(frame.size_hw, frame.inner_hw, frame.grid_hw, strict=True):
        middle = (torch.arange(patches) + 0.5) * frame.patch
        sides.append(middle.clamp(max=inner - 0.5) * (pixels / inner))
    y, x = sides
    return torch.stack(torch.broadcast_tensors(x[None], y[:, None]), -1)


def near_pairs(grid_hw: tuple[int, int], reach: int) -> Tensor:
    """(n, n) bool: pairs of a grid's patches that are at most `reach` rows and columns apart."""
    rows, columns = grid_hw
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    return ((row[:, None] - row).abs() <= reach) & ((column[:, None] - column).abs() <= reach)


@lru_cache(maxsize=128)
def _areas(pixels: int, inner: int, patch: int) -> Tensor:
    """(patches, pixels): the share of each pixel in the image part of a patch; rows sum to 1."""
    patches = math.ceil(inner / patch)
    edges = torch.arange(patches + 1, dtype=torch.float64) * (patch * pixels / inner)
    edges[-1] = pixels
    starts = torch.arange(pixels, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], starts + 1) - torch.maximum(edges[:-1, None], starts)
    overlap = overlap.clamp(min=0)
    return (overlap / overlap.sum(1, keepdim=True)).float()


@lru_cache(maxsize=128)
def _blend(pixels: int, inner: int, patch: int) -> Tensor:
    """(pixels, patches): bilinear weights of the patches around each pixel's centre; rows sum to 1."""
    patches = math.ceil(inner / patch)
    places = (torch.arange(pixels, dtype=torch.float64) + 0.5) * (inner / pixels / patch) - 0.5
    places = places.clamp(0, patches - 1)
    return (1 - (places[:, None] - torch.arange(patches, dtype=torch.float64)).abs()).clamp(min=0).float()
