"""A data set of two classes, small enough for the toy backbone: red discs, and what is left without them."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.drawing import draw


def make_discs(root: Path, count: int = 6) -> Path:
    """One folder per class: disc/ with discs, corner/ with a blue corner."""
    for name in ("corner", "disc"):
        (root / name).mkdir(parents=True)
        for n in range(count):
            picture, mask = draw(n + (100 if name == "corner" else 0), (64, 80))
            if name == "corner":
                picture = np.where(mask[..., None], np.uint8([60, 160, 60]), picture).astype(np.uint8)
                mask = np.zeros_like(mask)
                mask[:24, :32] = True
                picture[mask] = (30, 40, 200)
            Image.fromarray(picture).save(root / name / f"{name}{n}.jpg", quality=95)
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / name / f"{name}{n}.png")
    return root


def make_numbered_discs(root: Path, count: int = 6) -> Path:
    """disc/ with two discs in each image, side by side, and a mask that numbers them 300 and 301."""
    (root / "disc").mkdir(parents=True)
    for n in range(count):
        (left, one), (right, other) = draw(2 * n, (64, 64)), draw(2 * n + 1, (64, 64))
        Image.fromarray(np.hstack([left, right])).save(root / "disc" / f"disc{n}.jpg", quality=95)
        numbers = np.hstack([np.where(one, 300, 0), np.where(other, 301, 0)]).astype(np.uint16)
        Image.fromarray(numbers).save(root / "disc" / f"disc{n}_labels.png")
    return root
