"""Pixels and patches: the only place that knows how an image lies on its grid.

An image is resized with its aspect ratio kept, then padded at the right and the bottom to whole patches. A cell of
the grid is one patch. Pixel centres lie at half-integers, so nothing here ever asks about `align_corners`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kshot.errors import SettingError, ShapeError


@dataclass(frozen=True)
class Frame:
    """How one image lies on its grid.

    size_hw: the image, pixels. inner_hw: the resized image, pixels. patch: side of a patch in resized pixels.
    """

    size_hw: tuple[int, int]
    inner_hw: tuple[int, int]
    patch: int

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
        for _ in range(8):  # a strip one patch high loses cells linearly, a block quadratically: a few rounds do
            frame = cls(size_hw, (max(1, round(height * scale)), max(1, round(width * scale))), patch)
            cells = frame.grid_hw[0] * frame.grid_hw[1]
            if cells <= max(budget, 1):
                return frame
            scale *= budget / cells
        return frame

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return math.ceil(self.inner_hw[0] / self.patch), math.ceil(self.inner_hw[1] / self.patch)

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Size in resized pixels with the padding."""
        return self.grid_hw[0] * self.patch, self.grid_hw[1] * self.patch

    def cell_of(self, x: float, y: float) -> tuple[int, int]:
        """(row, column) of the patch under the point x, y of the image; points outside go to the nearest."""
        rows, columns = self.grid_hw
        row = int(y * self.inner_hw[0] / self.size_hw[0] / self.patch)
        column = int(x * self.inner_hw[1] / self.size_hw[1] / self.patch)
        return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """What a backbone says of one image.

    features: (c, gh, gw) float, each cell of unit length. frame: where the cells lie.
    identity: which backbone made it. token: (c,) of unit length for the whole image, in the space of the cells, where
    there is one. objectness: (gh, gw) in 0..1, where the backbone has such a head.
    """

    features: Tensor
    frame: Frame
    identity: str = ""
    token: Tensor | None = None
    objectness: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or tuple(self.features.shape[1:]) != self.frame.grid_hw:
            raise ShapeError(f"expected features (c, *{self.frame.grid_hw}), got {tuple(self.features.shape)}")

    @property
    def tokens(self) -> Tensor:
        """(gh * gw, c): the cells in reading order."""
        return self.features.flatten(1).T

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.frame.grid_hw


def to_grid(planes: Tensor, frame: Frame) -> Tensor:
    """Mean of pixel planes (..., h, w) over the part of the image in each cell: (..., gh, gw)."""
    rows = _areas(frame.size_hw[0], frame.inner_hw[0], frame.patch).to(planes)
    columns = _areas(frame.size_hw[1], frame.inner_hw[1], frame.patch).to(planes)
    return rows @ planes @ columns.T


def to_pixels(planes: Tensor, frame: Frame, out_hw: tuple[int, int] | None = None) -> Tensor:
    """Bilinear interpolation of grid planes (..., gh, gw) to the image (..., h, w), padding left out.

    out_hw: another resolution of the same image, for work on a smaller copy.
    """
    height, width = out_hw or frame.size_hw
    rows = _blend(height, frame.inner_hw[0], frame.patch).to(planes)
    columns = _blend(width, frame.inner_hw[1], frame.patch).to(planes)
    return rows @ planes @ columns.T


def coverage(frame: Frame) -> Tensor:
    """(gh, gw) in 0..1: the part of each cell that is image and not padding."""
    parts = []
    for inner, cells in zip(frame.inner_hw, frame.grid_hw, strict=True):
        part = torch.ones(cells)
        part[-1] = inner / frame.patch - (cells - 1)
        parts.append(part)
    return parts[0][:, None] * parts[1]


def cell_centres(frame: Frame) -> Tensor:
    """(gh, gw, 2): x and y, in pixels of the image, of the middle of each cell; in the image, where padding is not."""
    sides = []
    for pixels, inner, cells in zip(frame.size_hw, frame.inner_hw, frame.grid_hw, strict=True):
        middle = (torch.arange(cells) + 0.5) * frame.patch
        sides.append(middle.clamp(max=inner - 0.5) * (pixels / inner))
    y, x = sides
    return torch.stack(torch.broadcast_tensors(x[None], y[:, None]), -1)


@lru_cache(maxsize=128)
def _areas(pixels: int, inner: int, patch: int) -> Tensor:
    """(cells, pixels): which share of a cell's image part each pixel makes up; rows sum to 1."""
    cells = math.ceil(inner / patch)
    edges = torch.arange(cells + 1, dtype=torch.float64) * (patch * pixels / inner)
    edges[-1] = pixels
    starts = torch.arange(pixels, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], starts + 1) - torch.maximum(edges[:-1, None], starts)
    overlap = overlap.clamp(min=0)
    return (overlap / overlap.sum(1, keepdim=True)).float()


@lru_cache(maxsize=128)
def _blend(pixels: int, inner: int, patch: int) -> Tensor:
    """(pixels, cells): bilinear weights of the cells around each pixel's centre; rows sum to 1."""
    cells = math.ceil(inner / patch)
    places = (torch.arange(pixels, dtype=torch.float64) + 0.5) * (inner / pixels / patch) - 0.5
    places = places.clamp(0, cells - 1)
    return (1 - (places[:, None] - torch.arange(cells, dtype=torch.float64)).abs()).clamp(min=0).float()
