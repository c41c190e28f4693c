"""Folders of pictures without labels."""

from pathlib import Path

from PIL import Image

from tests.support.drawing import draw


def folder_of(path: Path, count: int) -> Path:
    """Small pictures of discs in two folders."""
    for n in range(count):
        place = path / ("a" if n % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(n, (40, 56))[0]).save(place / f"{n}.png")
    return path
