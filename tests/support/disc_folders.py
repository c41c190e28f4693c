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
