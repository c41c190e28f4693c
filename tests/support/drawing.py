"""Pictures of discs, drawn."""

import numpy as np


def draw(seed: int, size_hw: tuple[int, int] = (96, 128), disc: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A noisy green picture with a red disc in it, and the disc's mask."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    radius = min(size_hw) // 4
    y, x = rng.integers(radius, height - radius), rng.integers(radius, width - radius)
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows - y) ** 2 + (columns - x) ** 2 < radius**2) & disc
    picture = np.where(mask[..., None], (200, 40, 40), (40, 160, 60)).astype(np.float64)
    picture += rng.normal(0, 12, picture.shape)
    return picture.clip(0, 255).astype(np.uint8), mask
