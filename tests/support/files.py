"""Small pictures, masks and predictions that the tests of the formats share."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from kshot.types import Prediction


def picture(path: Path, size_hw: tuple[int, int] = (6, 8)) -> Path:
    """A picture file of noise, of the kind that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng((*size_hw, 0)).integers(0, 256, (*size_hw, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, labels: object, mode: str = "P") -> Path:
    """A mask file; mode P keeps 255 as ignore, mode L is a grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.fromarray(np.asarray(labels, np.uint8))
    if mode == "P":
        drawn.putpalette(bytes(range(256)) * 3)
    drawn.save(path)
    return path


def square(label: int = 1, size_hw: tuple[int, int] = (6, 8)) -> np.ndarray:
    """A mask with a 3 x 3 square at row 1, column 2."""
    labels = np.zeros(size_hw, np.uint8)
    labels[1:4, 2:5] = label
    return labels


def text(path: Path, content: object) -> Path:
    """A text file; anything but text is written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def prediction(labels: np.ndarray, classes: tuple[str, ...], *, with_picture: bool = True) -> Prediction:
    """A prediction that is 0.8 sure of each pixel."""
    scores = np.full((len(classes) + 1, *labels.shape), 0.2 / len(classes), np.float32)
    np.put_along_axis(scores, labels[None].astype(np.intp), 0.8, axis=0)
    shade = np.full((*labels.shape, 3), 128, np.uint8) if with_picture else None
    return Prediction(labels, scores, dict.fromkeys(classes, 0.9), classes, shade)
