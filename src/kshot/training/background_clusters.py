"""Learn a background prior: what patches of photographs look like, whatever they show, as a few hundred means.

With labelled photographs it also holds the presence model of `auto` (`presence_model`).

The universal background model (Reynolds et al., Digital Signal Processing 10, 2000, section 3) of `density` and `auto`.
Patch tokens of photographs without labels are clustered by their cosines (spherical k-means: Dhillon and Modha, Machine
Learning 42, 2001). Each cluster is kept as the plain mean of its tokens: the wider the cluster, the shorter its mean,
and the flatter the kernel density that the mean stands for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import DEFAULT, Backbone, load_backbone
from kshot.data.base import Dataset
from kshot.errors import TrainingError
from kshot.features import extract
from kshot.io.images import read_image
from kshot.io.tensor_file import FILE, Learned, write_learned
from kshot.methods.auto.presence import CUES
from kshot.ops.geometry import coverage
from kshot.ops.similarity import cosines
from kshot.segmenter import Segmenter
from kshot.training.mask_sources import train_part
from kshot.training.output_folder import check_output
from kshot.training.presence_model import episode_cues, fit_presence
from kshot.training.schedule import Progress
from kshot.training.unlabelled import find_photos, seeded_rng

_METHOD = "density"  # the method that the file is for
_INSIDE = 0.99  # fraction of a patch that must lie in the image


@dataclass(frozen=True)
class BackgroundPriorResult:
    """What `background_prior` made."""

    weights: Path
    """The file; give its folder as `weights` in the settings of `auto` or `density`."""
    photos: int
    """Photographs that it was learned from."""
    near_duplicates: int
    """Photographs left out, since they show what a test image shows."""
    patches: int
    """Patch tokens that were clustered."""
    decisions: int = 0
    """Decisions about presence that its presence model was fitted to; 0 without labelled photographs."""


def background_prior(
    photos: Path | str,
    out: Path | str,
    *,
    backbone: str | None = None,
    layers: Sequence[str] | None = None,
    size: int | None = None,
    without: Sequence[Path | str] = (),
    masks: Sequence[Dataset] | None = None,
    episodes: int = 150,
    limit: int = 1000,
    patches: int = 64,
    clusters: int = 1024,
    rounds: int = 12,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BackgroundPriorResult:
    """Learn the background prior of a backbone, and write it into the folder `out`.

    photos: folder of photographs, sub-folders included; limit: how many are looked at. backbone, layers: whose features
    (default: kshot's backbone). size: the longer side of a photograph in pixels (default: the backbone's). without:
    folders of test images; photographs that show the same are left out. masks: data sets of labelled photographs, for
    the presence model of `auto`; episodes: of each, for each number of classes and supports. patches: tokens drawn from
    each photograph. clusters: means that are kept at most. rounds: of k-means. seed: of everything random. overwrite:
    replace a file of the same name that no training made. Raises `InputError`, `SettingError`, `BackboneError`,
    `DatasetError`, `TrainingError` and `OutputError`.
    """
    photos, out = Path(photos), Path(out)
    check_output(out, [FILE], overwrite=overwrite)
    encoder = load_backbone(backbone or DEFAULT, device=device, layers=layers)
    found, near_duplicates = find_photos(photos, limit, without)

    def step(done: int) -> None:
        if progress:
            progress("patches", done, len(found), {})

    tokens = sample(encoder, found, size or encoder.spec.size, patches, seed, step)
    means, fractions = cluster(tokens, clusters, rounds, seed)
    facts = {
        "method": _METHOD,
        "identity": encoder.identity,
        "backbone": encoder.spec.name,
        "photos": len(found),
        "cells": len(tokens),
        "seed": seed,
    }
    out.mkdir(parents=True, exist_ok=True)
    learned = Learned(facts, {"means": means.half(), "shares": fractions})
    write_learned(out / FILE, learned)
    decisions = 0
    if masks:

        def episode_step(done: int, total: int) -> None:
            if progress:
                progress("presence", done, total, {})

        settings = {"weights": str(out / FILE)}
        segmenter = Segmenter(backbone=encoder, method="auto", refiner="none", method_settings=settings)
        cues, present = episode_cues(segmenter, [*map(train_part, masks)], episodes, seed, episode_step)
        decisions, facts = len(present), facts | {"cues": list(CUES), "decisions": len(present)}
        write_learned(out / FILE, Learned(facts, dict(learned.tensors) | {"presence": fit_presence(cues, present)}))
    return BackgroundPriorResult(out / FILE, len(found), near_duplicates, len(tokens), decisions)


def sample(
    backbone: Backbone, photos: Sequence[Path], size: int, count: int, seed: int, step: Callable[[int], None]
) -> Tensor:
    """Patch tokens (n, c) of unit length, at most `count` of each photograph, drawn at random.

    The draw from a photograph does not depend on the others. step: called with the number of photographs done.
    Raises `TrainingError` without photographs.
    """
    if not photos:
        raise TrainingError("no photograph is left to learn from; give a folder with others")
    drawn = []
    for index, photo in enumerate(photos):
        features = extract(backbone, read_image(photo), size)
        inside = features.tokens[coverage(features.frame).flatten() > _INSIDE]
        order = np.argsort(seeded_rng(seed, index).random(len(inside)))[:count]
        drawn.append(inside[torch.from_numpy(order)].half().cpu())
        step(index + 1)
    return torch.cat(drawn).float()


def cluster(tokens: Tensor, clusters: int, rounds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Means (k, c) of clusters of patch tokens (n, c), and the fraction (k,) of the tokens in each; they sum to 1.

    Means are shorter than 1. Clusters that end empty are left out. Raises `TrainingError` for fewer tokens than
    clusters.
    """
    if len(tokens) < clusters:
        raise TrainingError(
            f"{len(tokens)} patch tokens for {clusters} clusters; give more photographs, or fewer clusters"
        )
    start = np.argsort(seeded_rng(seed, len(tokens)).random(len(tokens)))[:clusters]
    centres = tokens[torch.from_numpy(start)]
    for _ in range(rounds):
        nearest = torch.cat([block.argmax(1) for block in cosines(tokens, F.normalize(centres, dim=1))])
        counts = torch.bincount(nearest, minlength=clusters)
        sums = torch.zeros_like(centres).index_add_(0, nearest, tokens)
        kept = counts > 0
        centres = torch.where(kept[:, None], sums / counts.clamp(min=1)[:, None], centres)
    return centres[kept], counts[kept] / counts.sum()
