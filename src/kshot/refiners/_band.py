"""What refiners share: the band around the decision, and copies of the image at the size that they work at."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def band(logits: Tensor, reach: int) -> Tensor:
    """(gh, gw): 1 where, in logits (N+1, gh, gw), another class wins within `reach` patches, else 0."""
    winner = logits.argmax(0)[None, None].float()
    window = 2 * reach + 1
    highest, lowest = (F.max_pool2d(sign * winner, window, 1, reach) * sign for sign in (1, -1))
    return (highest != lowest).float()[0, 0]


def fit_size(size_hw: tuple[int, int], side: int) -> tuple[int, int]:
    """The size of a copy of at most `side` x `side` pixels of area, aspect ratio kept."""
    scale = min(1.0, side / (size_hw[0] * size_hw[1]) ** 0.5)
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def shrink(image: Image.Image, size_hw: tuple[int, int]) -> Tensor:
    """An image at a smaller size or its own: (h, w) or (h, w, 3) uint8."""
    if (image.height, image.width) != size_hw:
        image = image.resize((size_hw[1], size_hw[0]), Image.Resampling.BOX)
    return torch.from_numpy(np.array(image))


def enlarge(planes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Planes (n, h, w) at another size, bilinear."""
    return F.interpolate(planes[None], size_hw, mode="bilinear", align_corners=False)[0]
