"""Discs of many colours on a green ground: classes enough to learn to compare from, on the toy backbone."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import kshot
from kshot.io.tensor_file import FILE, Learned, write_learned
from kshot.methods.base import Support
from kshot.training.episode_batches import Example
from kshot.training.episodic_heads import Comparing, cross_entropy, make_head
from kshot.training.episodic_recipes import Recipe
from kshot.types import Shot
from tests.support.drawing import draw

COLOURS = {
    "red": (200, 40, 40),
    "blue": (40, 40, 200),
    "white": (220, 220, 220),
    "black": (20, 20, 20),
    "yellow": (210, 200, 40),
    "violet": (150, 40, 170),
}
SHAPE = {"start": "identity", "width": 16, "cosines": True, "seed": 0}


def disc(seed: int, colour: str | None, size_hw: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a disc of a colour, or with none; and the disc's mask."""
    picture, mask = draw(seed, size_hw, disc=colour is not None)
    if colour is not None:
        noise = np.random.default_rng(seed).normal(0, 12, (int(mask.sum()), 3))
        picture[mask] = (np.array(COLOURS[colour]) + noise).clip(0, 255)
    return picture, mask


def example(segmenter: kshot.Segmenter, number: int, shots: int = 1) -> Example:
    """A support of one colour, and a query that shows it, another colour, or nothing."""
    names = list(COLOURS)
    own, other = names[number % len(names)], names[(number * 5 + 1) % len(names)]
    shown = (own, own, other, None)[number % 4]
    supports = segmenter.encode(
        [Shot(p, mask=m, label="disc") for p, m in (disc(1000 + 10 * number + k, own) for k in range(shots))], ["disc"]
    )
    picture, mask = disc(5000 + number, shown)
    features = segmenter.features(picture)
    if shown is None:
        blank = torch.zeros(1, *features.grid_hw)
        return Example(supports, Support(features, blank, torch.ones(features.grid_hw)))
    (query,) = segmenter.encode([Shot(picture, mask=mask, label="disc")], ["disc"])
    empty = torch.zeros_like(query.masks)
    return Example(supports, Support(features, query.masks if shown == own else empty, query.valid_mask))


def train_head(segmenter: kshot.Segmenter, steps: int) -> tuple[Comparing, list[float]]:
    """A head after some steps of four examples, and its losses."""
    head = make_head("dense-comparison", 16, **SHAPE)
    assert isinstance(head, Comparing)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    examples = [example(segmenter, number, 1 + number % 2) for number in range(24)]
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        parts = [head.predict(examples[(4 * step + k) % 24], Recipe())["query"] for k in range(4)]
        loss = cross_entropy([patches for each in parts for patches in each], 0.5)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return head, losses


def trained_head(folder: Path) -> Path:
    """The folder of a head that finds discs."""
    torch.manual_seed(0)
    segmenter = kshot.Segmenter(backbone="toy", size=96)
    head, _ = train_head(segmenter, 72)
    facts = {"method": "dense-comparison", "backbone": "toy", "identity": segmenter.backbone.identity, **head.facts()}
    write_learned(folder / FILE, Learned(facts, head.state_dict()))
    return folder


def make_colours(root: Path, count: int = 4) -> Path:
    """A data set folder: a class for each colour, each in `count` pictures."""
    for number, name in enumerate(COLOURS):
        (root / name).mkdir(parents=True)
        for n in range(count):
            picture, mask = disc(100 * number + n, name, (64, 80))
            Image.fromarray(picture).save(root / name / f"{name}{n}.jpg", quality=95)
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / name / f"{name}{n}.png")
    return root
