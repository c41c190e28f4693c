"""Learn a background prior: what patches of photographs look like, whatever they show, as a few hundred means.

With labelled photographs it also holds linear discriminants (`kshot.ops.discriminants`), and the presence model of
`auto` (`presence_model`).

The universal background model (Reynolds et al., Digital Signal Processing 10, 2000, section 3) of `density` and `auto`.
Patch tokens of photographs without labels are clustered by their cosines (spherical k-means: Dhillon and Modha, Machine
Learning 42, 2001). Each cluster is kept as the plain mean of its tokens: the wider the cluster, the shorter its mean,
and the flatter the kernel density that the mean stands for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from kshot.methods import density
from kshot.methods.auto.lone_support import pairs_of_photographs
from kshot.methods.auto.presence import CUES
from kshot.ops.discriminants import fit_discriminants
from kshot.ops.geometry import coverage
from kshot.ops.similarity import cosines
from kshot.segmenter import Segmenter
from kshot.training.class_tokens import class_tokens
from kshot.training.mask_sources import mask_sources, train_part
from kshot.training.output_folder import check_output
from kshot.training.presence_model import episode_cues, fit_presence
from kshot.training.schedule import Progress
from kshot.training.unlabelled import find_photos, seeded_rng

_METHOD = "density"  # the method that the file is for
_APART, _SHARE_APART = 200, 6  # photographs that the prior is not learned from: so many, or one in so many if fewer
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
    discriminants: Sequence[Dataset] | None = None,
    partial_discriminants: Sequence[Dataset] | None = None,
    masks: Sequence[Dataset] | None = None,
    episodes: int = 150,
    limit: int = 1200,
    patches: int = 64,
    clusters: int = 1024,
    rounds: int = 12,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BackgroundPriorResult:
    """Learn the background prior of a backbone, and write it into the folder `out`.

    photos: folder of photographs, sub-folders included; limit: how many are looked at. A sixth of them, at most 200,
    are kept apart: they tell how much alike photographs are (`pairs_of_photographs`). backbone, layers: whose features
    (default: kshot's backbone). size: the longer side of a photograph in pixels (default: the backbone's). without:
    folders of test images; photographs that show the same are left out. discriminants: data sets of many classes, for
    linear discriminants; partial_discriminants: those whose images come from several sources with classes of their own
    (`mask_sources`). masks: data sets of labelled photographs, for the presence model of `auto`, which the backbone did
    not learn from; episodes: of each, for each number of classes and supports. patches: tokens drawn from each
    photograph. clusters: means that are kept at most. rounds: of k-means. seed: of everything random. overwrite:
    replace a file of the same name that no training made. Raises `InputError`, `SettingError`, `BackboneError`,
    `DatasetError`, `TrainingError` and `OutputError`.
    """
    photos, out = Path(photos), Path(out)
    check_output(out, [FILE], overwrite=overwrite)
    encoder = load_backbone(backbone or DEFAULT, device=device, layers=layers)
    found, near_duplicates = find_photos(photos, limit, without)
    kept = len(found) - min(_APART, len(found) // _SHARE_APART)
    found, apart = found[:kept], found[kept:]
    side = size or encoder.spec.size

    def told(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(stage, done, total, {}) if progress else None

    learned = None
    if discriminants or partial_discriminants:  # first, since too few classes end it
        whole, partial = (
            [train_part(each) for each in given or ()] for given in (discriminants, partial_discriminants)
        )
        sources, _ = mask_sources(whole, partial)
        samples, names = class_tokens(encoder, sources, side, told("classes"))
        learned, kinds = fit_discriminants(samples, names), len(set(names))
    of_photos = told("patches")
    tokens = sample(encoder, found, side, patches, seed, lambda done: of_photos(done, len(found)))
    means, fractions, nearest = cluster(tokens, clusters, rounds, seed)
    tensors = {"means": means.half(), "shares": fractions}
    facts: dict[str, Any] = {
        "method": _METHOD,
        "identity": encoder.identity,
        "backbone": encoder.spec.name,
        "photos": len(found),
        "photos_apart": len(apart),
        "cells": len(tokens),
        "seed": seed,
    }
    prior = Learned(facts, tensors)
    others = [extract(encoder, read_image(photo), side) for photo in apart or found]
    tensors = tensors | {"pairs": pairs_of_photographs(others, prior, density.Settings().kappa)}
    if learned:
        tensors |= {"mean": learned.mean, "directions": learned.directions.half()}
        tensors |= {"projected": cluster_means(learned.project(tokens), nearest, len(means)).half()}
        facts |= {"discriminants": sorted({source.name for source in sources}), "kinds": kinds}
    out.mkdir(parents=True, exist_ok=True)
    write_learned(out / FILE, Learned(facts, tensors))
    decisions = 0
    if masks:
        settings = {"weights": str(out / FILE)}
        segmenter = Segmenter(backbone=encoder, method="auto", refiner="none", method_settings=settings)
        cues, present, kinds_drawn = episode_cues(
            segmenter, [*map(train_part, masks)], episodes, seed, told("presence")
        )
        decisions, facts = len(present), facts | {"cues": list(CUES), "decisions": len(present)}
        write_learned(out / FILE, Learned(facts, tensors | {"presence": fit_presence(cues, present, kinds_drawn)}))
    return BackgroundPriorResult(out / FILE, len(found) + len(apart), near_duplicates, len(tokens), decisions)


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


class Clusters(NamedTuple):
    """Groups of patch tokens."""

    means: Tensor
    """(k, c), shorter than 1."""
    shares: Tensor
    """(k,) the fraction of the tokens in each; they sum to 1."""
    nearest: Tensor
    """(n,) the cluster of each token."""


def cluster(tokens: Tensor, clusters: int, rounds: int, seed: int) -> Clusters:
    """Clusters of patch tokens (n, c) of unit length, at most `clusters`.

    Clusters that end empty are left out. Raises `TrainingError` for fewer tokens than clusters.
    """
    if len(tokens) < clusters:
        raise TrainingError(
            f"{len(tokens)} patch tokens for {clusters} clusters; give more photographs, or fewer clusters"
        )
    start = np.argsort(seeded_rng(seed, len(tokens)).random(len(tokens)))[:clusters]
    centres = tokens[torch.from_numpy(start)]
    for _ in range(rounds):
        nearest = torch.cat([block.argmax(1) for block in cosines(tokens, F.normalize(centres, dim=1))])
        kept = torch.bincount(nearest, minlength=clusters) > 0
        centres = torch.where(kept[:, None], cluster_means(tokens, nearest, clusters), centres)
    shares = torch.bincount(nearest, minlength=clusters)[kept] / len(tokens)
    return Clusters(centres[kept], shares, (kept.cumsum(0) - 1)[nearest])


def cluster_means(values: Tensor, nearest: Tensor, clusters: int) -> Tensor:
    """(clusters, c) means of values (n, c) over each cluster, of which `nearest` (n,) tells; 0 for an empty one."""
    counts = torch.bincount(nearest, minlength=clusters)
    sums = torch.zeros(clusters, values.shape[1]).index_add_(0, nearest, values)
    return sums / counts.clamp(min=1)[:, None]
