"""Made-up images with a disc in them."""

import numpy as np


def disc(seed: int, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A noisy green image (h, w, 3) uint8 with a red disc in it, and the disc's mask (h, w) bool."""
    rng, (height, width) = np.random.default_rng(seed), size_hw
    rows, columns = np.mgrid[:height, :width]
    y, x = rng.integers(height // 4, 3 * height // 4), rng.integers(width // 5, 4 * width // 5)
    mask = (rows - y) ** 2 + (columns - x) ** 2 < (height // 4) ** 2
    image = np.where(mask[..., None], (200, 40, 40), (40, 160, 60)) + rng.normal(0, 12, (*size_hw, 3))
    return image.clip(0, 255).astype(np.uint8), mask
