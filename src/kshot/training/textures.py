"""Labelled images of textures, made from photographs without labels.

A texture is a small part of a photograph. It is put onto views of other photographs, in areas as of cells, thin lines,
grains or stains, so what is learned is to find again what looks the same, of any kind and any shape. Collections of
labelled photographs show people and animals; these batches keep an encoder good at what they lack.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from kshot.io.images import read_image
from kshot.training.unlabelled import RGB, color_jitter, crop_resize, random_resized_crop_box

_MAX_TEXTURES = 3  # of a batch
_SHOWN = 0.75  # fraction of the views that show a given texture
_TEXTURE_SIDE = 0.1, 0.35  # of a texture's window, relative to the photograph's shorter side
_TINT = 24.0  # grey levels by which the light on a texture may differ between views
Area = NDArray[np.bool_]


def texture_views(
    photos: Sequence[Path], count: int, side: int, rng: np.random.Generator
) -> tuple[list[Image.Image], list[NDArray[np.uint8]], tuple[int, ...]]:
    """`count` views of `side` pixels, their labels (0 background, 1 to n textures) and the ids of the textures."""
    textures = int(rng.integers(1, _MAX_TEXTURES + 1))
    chosen = [photos[int(index)] for index in rng.integers(len(photos), size=textures + count)]
    # Wherever a texture is needed, another part of its window is taken.
    windows = [_window(read_image(path), rng) for path in chosen[:textures]]
    shapes = [_SHAPES[int(index)] for index in rng.integers(len(_SHAPES), size=textures)]
    views, labels = [], []
    for path in chosen[textures:]:
        image = read_image(path)
        view = crop_resize(image, random_resized_crop_box((image.shape[0], image.shape[1]), rng, 0.05), side)
        label = np.zeros((side, side), np.uint8)
        for class_id, (window, shape) in enumerate(zip(windows, shapes, strict=True), 1):
            if rng.random() < _SHOWN:
                area = shape(side, rng)
                view = _put(view, _filled(window, side, rng), area, rng)
                label[area] = class_id
        views.append(color_jitter(view, rng))
        labels.append(label)
    return views, labels, tuple(range(1, textures + 1))


def _window(image: RGB, rng: np.random.Generator) -> RGB:
    """A square part of a photograph, of one look."""
    side = max(8, round(min(image.shape[:2]) * rng.uniform(*_TEXTURE_SIDE)))
    top, left = (int(rng.integers(max(1, length - side))) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _filled(window: RGB, side: int, rng: np.random.Generator) -> Image.Image:
    """A view full of the texture: the window, mirrored again and again, at a random size, turn and light."""
    zoom = float(rng.uniform(0.6, 1.4)) * max(1.0, side / (4 * window.shape[0]))
    pixels = max(8, round(window.shape[0] * zoom))
    tile = Image.fromarray(window).resize((pixels, pixels), Image.Resampling.BICUBIC)
    turned = np.rot90(np.asarray(tile), int(rng.integers(4)))
    pair = np.concatenate([turned, turned[:, ::-1]], 1)
    block = np.concatenate([pair, pair[::-1]], 0)
    times = -(-side // block.shape[0]) + 1
    start = rng.integers(block.shape[0], size=2)
    full = np.tile(block, (times, times, 1))[start[0] : start[0] + side, start[1] : start[1] + side]
    light = full.astype(np.float32) + rng.uniform(-_TINT, _TINT)
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))


def _put(view: Image.Image, texture: Image.Image, area: Area, rng: np.random.Generator) -> Image.Image:
    """The view with the texture in an area, whose edge is sharp or soft."""
    mask = Image.fromarray(area.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 2))))
    return Image.composite(texture, view, mask)


def _stains(side: int, rng: np.random.Generator) -> Area:
    """Areas of any form: the highest values of smooth noise."""
    knots = int(rng.integers(3, 12))
    noise = Image.fromarray(rng.standard_normal((knots, knots)).astype(np.float32))
    values = np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    found: Area = values > np.quantile(values, 1 - rng.uniform(0.05, 0.4))
    return found


def _lines(side: int, rng: np.random.Generator) -> Area:
    """Thin lines that wander."""
    canvas = Image.new("1", (side, side))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(1, 5))):
        turns = np.cumsum(rng.normal(0, 0.5, 24)) + rng.uniform(0, 2 * np.pi)
        steps = np.stack([np.cos(turns), np.sin(turns)], 1) * side / 16
        points = rng.uniform(0, side, 2) + np.cumsum(steps, 0)
        draw.line([(float(x), float(y)) for x, y in points], fill=1, width=int(rng.integers(4, max(6, side // 16))))
    return np.asarray(canvas)


def _grains(side: int, rng: np.random.Generator) -> Area:
    """Round things of about one size."""
    canvas = Image.new("1", (side, side))
    draw = ImageDraw.Draw(canvas)
    radius = rng.uniform(side / 40, side / 7)
    for _ in range(int(rng.integers(2, 2 + max(2, int(side / radius))))):
        x, y = rng.uniform(0, side, 2)
        wide, high = radius * rng.uniform(0.7, 1.3, 2)
        draw.ellipse((x - wide, y - high, x + wide, y + high), fill=1)
    return np.asarray(canvas)


_SHAPES: tuple[Callable[[int, np.random.Generator], Area], ...] = (_stains, _lines, _grains)
