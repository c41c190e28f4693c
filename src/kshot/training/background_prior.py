"""`kshot train background`: what cells of photographs look like, whatever they show, in a few hundred means.

A universal background (Reynolds et al., Digital Signal Processing 10, 2000, section 3) for `density` and `auto`: cells
of unlabelled photographs are clustered by their cosines (spherical k-means: Dhillon & Modha, Machine Learning 42,
2001), and each cluster is kept as the plain mean of its cells: the wider it is, the shorter its mean, and the flatter
the kernel density that it stands for.
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
from kshot.ops.geometry import coverage
from kshot.ops.similarity import cosines
from kshot.training.unlabelled import rng

METHOD = "density"  # whose tensors these are
_WHOLE = 0.99  # part of a cell that must lie in the picture


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


def write(out: Path, backbone: Backbone, tokens: Tensor, photos: int, clusters: int, rounds: int, seed: int) -> Path:
    """Cluster, and write what `--set method.weights=` takes; the file's path."""
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
    tensors = {"means": means.half(), "shares": shares}
    write_learned(out / FILE, Learned(facts, tensors))
    return out / FILE
