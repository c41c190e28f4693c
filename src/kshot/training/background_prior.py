"""`kshot train background`: what cells of photographs look like, whatever they show, in a few hundred means.

A universal background (Reynolds et al., Digital Signal Processing 10, 2000, section 3) for `density` and `auto`: cells
of unlabelled photographs are clustered by their cosines (spherical k-means: Dhillon & Modha, Machine Learning 42,
2001), and each cluster is kept as the plain mean of its cells: the wider it is, the shorter its mean, and the flatter
the kernel density that it stands for. Beside it goes what the backbone says of places: the main directions in which
cells of a picture of one colour differ, for `auto` to take out on demand.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Backbone
from kshot.errors import TrainingError
from kshot.features import extract
from kshot.io.images import read_image
from kshot.io.tensor_file import FILE, Learned, write_learned
from kshot.methods._positions import NAME
from kshot.ops.geometry import coverage
from kshot.ops.similarity import cosines
from kshot.training.unlabelled import rng

METHOD = "density"  # whose tensors these are
_WHOLE = 0.99  # part of a cell that must lie in the picture
_GREYS = (0, 64, 128, 192, 255)
_DIRECTIONS, _NOTHING = 64, 1e-4  # most that are kept, and the length of what is rounding


def sample(
    backbone: Backbone, photos: Sequence[Path], size: int, cells: int, seed: int, step: Callable[[int], None]
) -> Tensor:
    """(n, c) cells of unit length: at most `cells` of each photograph, drawn by chance whatever the others are.

    step: told how many are done. Raises `TrainingError` without photographs.
    """
    if not photos:
        raise TrainingError("no photograph is left to learn from; give a folder with others")
    drawn = []
    for index, photo in enumerate(photos):
        features = extract(backbone, read_image(photo), size)
        inside = features.tokens[coverage(features.frame).flatten() > _WHOLE]
        order = np.argsort(rng(seed, index).random(len(inside)))[:cells]
        drawn.append(inside[torch.from_numpy(order)].half().cpu())
        step(index + 1)
    return torch.cat(drawn).float()


def cluster(tokens: Tensor, clusters: int, rounds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Means (k, c), shorter than one, and the shares (k,) of the cells that each stands for, which sum to 1.

    Clusters that end empty are left out. Raises `TrainingError` for fewer cells than clusters.
    """
    if len(tokens) < clusters:
        raise TrainingError(f"{len(tokens)} cells for {clusters} clusters; give more photographs, or --clusters")
    start = np.argsort(rng(seed, len(tokens)).random(len(tokens)))[:clusters]
    centres = tokens[torch.from_numpy(start)]
    for _ in range(rounds):
        nearest = torch.cat([block.argmax(1) for block in cosines(tokens, F.normalize(centres, dim=1))])
        counts = torch.bincount(nearest, minlength=clusters)
        sums = torch.zeros_like(centres).index_add_(0, nearest, tokens)
        kept = counts > 0
        centres = torch.where(kept[:, None], sums / counts.clamp(min=1)[:, None], centres)
    return centres[kept], counts[kept] / counts.sum()


def positions(backbone: Backbone, size: int) -> Tensor:
    """(r, c) orthogonal directions of what pictures of one grey make of places, longest first; r is 0 if nothing.

    size: side of the pictures in pixels. The squared lengths are the variances over the cells of a picture.
    """
    spread = []
    for grey in _GREYS:
        tokens = extract(backbone, np.full((size, size, 3), grey, np.uint8), size).tokens
        spread.append(tokens - tokens.mean(0))
    stacked = torch.cat(spread)
    _, lengths, rows = torch.linalg.svd(stacked / len(stacked) ** 0.5, full_matrices=False)
    kept = min(_DIRECTIONS, int((lengths > _NOTHING).sum()))
    found: Tensor = lengths[:kept, None] * rows[:kept]
    return found


def write(
    out: Path, backbone: Backbone, tokens: Tensor, photos: int, size: int, clusters: int, rounds: int, seed: int
) -> Path:
    """Cluster, find the directions of position, and write what `--set method.weights=` takes; the file's path."""
    means, shares = cluster(tokens, clusters, rounds, seed)
    facts = {
        "method": METHOD,
        "identity": backbone.identity,
        "backbone": backbone.spec.name,
        "photos": photos,
        "cells": len(tokens),
        "seed": seed,
    }
    out.mkdir(parents=True, exist_ok=True)
    tensors = {"means": means.half(), "shares": shares, NAME: positions(backbone, size).half()}
    write_learned(out / FILE, Learned(facts, tensors))
    return out / FILE
