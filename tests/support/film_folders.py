"""Films of discs with true masks, in the layouts of DAVIS and of two folders."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE_HW = (64, 96)


def frame(place: int, *, small: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A red disc (object 1) that moves to the right over a green ground, and a blue square (object 2) that stays."""
    rng = np.random.default_rng(place)
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    labels = np.zeros(SIZE_HW, np.uint8)
    labels[(x - 20 - 3 * place) ** 2 + (y - 24) ** 2 < 14**2] = 1
    if small:
        labels[44:60, 70:90] = 2
    colours = np.array([(60, 160, 60), (200, 40, 40), (40, 40, 200)])
    image = colours[labels] + rng.normal(0, 8, (*SIZE_HW, 3))
    return image.clip(0, 255).astype(np.uint8), labels


def save_mask(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(labels)
    mask.putpalette([n % 256 for n in range(768)])
    mask.save(path)


def make_davis(root: Path, films: dict[str, int], resolution: str = "480p") -> Path:
    """JPEGImages/480p/FILM/00000.jpg and Annotations/480p/FILM/00000.png; films: {name: frames}."""
    for name, count in films.items():
        (root / "JPEGImages" / resolution / name).mkdir(parents=True)
        for place in range(count):
            image, labels = frame(place)
            Image.fromarray(image).save(root / "JPEGImages" / resolution / name / f"{place:05}.jpg", quality=95)
            save_mask(root / "Annotations" / resolution / name / f"{place:05}.png", labels)
    return root


def make_two_folders(root: Path, count: int) -> Path:
    """images/ and masks/, the latter in black and white, of one object."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for place in range(count):
        image, labels = frame(place, small=False)
        Image.fromarray(image).save(root / "images" / f"{place:03}.png")
        Image.fromarray(labels * np.uint8(255)).save(root / "masks" / f"{place:03}.png")
    return root
