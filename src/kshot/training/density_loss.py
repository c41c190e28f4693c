"""How well the readout of `density` segments each image of a batch with the help of the others.

All images are supports and queries at once: b images give up to b (b - 1) one-shot episodes for each class, and some
two-shot ones, at the cost of b forward passes. A query that lacks the class must come out empty.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods.density import Settings
from kshot.ops.similarity import DENSITY_FLOOR
from kshot.types import IGNORE

_TOKEN_TEMPERATURE = 0.1  # as of contrastive losses of the field (Khosla et al., NeurIPS 2020)
_LEAST = 1.5  # patches that a support must show of its class, and of anything else
_MIN_PAIR_IMAGES = 3  # that show a class: two supports and a query
_READOUT = Settings()


class DensityLosses(NamedTuple):
    """Means over the episodes of a batch."""

    binary: Tensor
    """() cross-entropy of one class against the rest."""
    dice: Tensor
    """() soft Dice loss, where the query shows the class."""
    ways: Tensor
    """() cross-entropy of background and all classes of the batch, one support each; 0 for a single class."""
    episodes: int
    """Of one class each."""


class GridLabels(NamedTuple):
    """What each patch shows."""

    classes: Tensor
    """(b, n, t) in 0..1, the fraction of a patch that shows each of n classes."""
    valid: Tensor
    """(b, t) in 0..1, the fraction of a patch that is labelled."""


def grid_labels(labels: Tensor, classes: tuple[int, ...], patch: int) -> GridLabels:
    """From label maps (b, side, side)."""
    shown = torch.stack([F.avg_pool2d((labels == c).float(), patch).flatten(1) for c in classes], 1)
    return GridLabels(shown, F.avg_pool2d((labels != IGNORE).float(), patch).flatten(1))


def density_losses(tokens: Tensor, grid: GridLabels, rng: torch.Generator) -> DensityLosses:
    """Losses of tokens (b, t, c) of unit length. rng: chooses supports of the two-shot and many-class episodes."""
    images, patches, channels = tokens.shape
    flat = tokens.reshape(-1, channels)
    cosines = (flat @ flat.T).float()  # (b t, b t)
    kernel = ((cosines - 1) * _READOUT.kappa).exp()
    own = cosines.view(images, patches, images, patches)[range(images), :, range(images)]  # (b, t, t)
    affinity = (_READOUT.affinity_sharpness * own).softmax(-1)
    background = (grid.valid[:, None] - grid.classes).clamp(min=0)  # (b, n, t): labelled, and not this class
    sides = torch.stack([background, grid.classes], 1)  # (b, 2, n, t)
    usable = (sides.sum(3) > _LEAST).all(1)  # (b, n)
    densities = _densities(kernel, sides)  # (b, t, b, 2, n): queries, their patches, supports
    logs = densities.clamp(min=DENSITY_FLOOR).log()
    single = logs[:, :, :, 1] - logs[:, :, :, 0]  # (b, t, b, n)
    other = ~torch.eye(images, dtype=torch.bool, device=tokens.device)
    used = (usable[None] & other[:, :, None]).flatten(1)  # (b, b n)
    targets = grid.classes.repeat(1, images, 1)  # (b, b n, t)
    ratios = single.flatten(2)
    for first, second, way in _pairs(usable, rng):
        both = (densities[:, :, first, :, way] + densities[:, :, second, :, way]).clamp(min=DENSITY_FLOOR).log()
        ratios = torch.cat([ratios, (both[..., 1] - both[..., 0])[..., None]], 2)
        targets = torch.cat([targets, grid.classes[:, way, None]], 1)
        used = torch.cat([used, (other[:, first] & other[:, second])[:, None]], 1)
    smoothed = (affinity @ ratios).transpose(1, 2)[used]  # (episodes, t)
    valid = grid.valid[:, None].expand(-1, used.shape[1], -1)[used]
    ways = _joint_loss(kernel, logs[:, :, :, 1], affinity, grid, usable, rng)
    return DensityLosses(*_one_class_losses(smoothed, targets[used], valid), ways, len(smoothed))


def token_loss(tokens: Tensor, grid: GridLabels) -> Tensor:
    """() contrastive loss of image tokens (b, c) of unit length: nearer to images that share a class than to others.

    Supervised contrastive learning (Khosla et al., NeurIPS 2020, equation 2), where images that share one class of
    several count as positive. All images are of one source, so what is told apart is classes, not collections.
    """
    shows = (grid.classes.sum(2) > _LEAST).to(tokens.dtype)  # (b, n)
    other = ~torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
    shared = (shows @ shows.T > 0) & other
    logits = (tokens @ tokens.T / _TOKEN_TEMPERATURE).masked_fill(~other, -torch.inf).log_softmax(1)
    counted = shared.any(1) & (other & ~shared).any(1)  # without a negative there is nothing to learn
    each = -logits.masked_fill(~shared, 0.0).sum(1) / shared.sum(1).clamp(min=1)
    return each[counted].mean() if bool(counted.any()) else tokens.sum() * 0


def _densities(kernel: Tensor, sides: Tensor) -> Tensor:
    """(b, t, b, 2, n) kernel densities of every patch, under the background and the classes of every image."""
    images, _, ways, patches = sides.shape
    shares = sides / sides.sum(3, keepdim=True).clamp(min=1e-6)
    # Each image's columns hold its own patches alone.
    spread = torch.zeros(images, patches, images, 2, ways, dtype=kernel.dtype, device=kernel.device)
    spread[range(images), :, range(images)] = shares.permute(0, 3, 1, 2)
    return (kernel @ spread.flatten(2).flatten(0, 1)).view(images, patches, images, 2, ways)


def _pairs(usable: Tensor, rng: torch.Generator) -> list[tuple[int, int, int]]:
    """Two pairs of supports for each class that three images show."""
    found = []
    for way in range(usable.shape[1]):
        images = usable[:, way].nonzero()[:, 0].tolist()
        for _ in range(2 if len(images) >= _MIN_PAIR_IMAGES else 0):
            first, second = (images[index] for index in torch.randperm(len(images), generator=rng)[:2].tolist())
            found.append((first, second, way))
    return found


def _one_class_losses(ratios: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice loss () of log ratios (e, t) as logits."""
    if not len(ratios):  # no image of the batch shows enough of a class
        return ratios.sum(), ratios.sum()
    each = F.binary_cross_entropy_with_logits(ratios, targets, reduction="none")
    binary = ((each * valid).sum(1) / valid.sum(1).clamp(min=1)).mean()
    found, shown = ratios.sigmoid() * valid, targets.sum(1) > 1
    dice = 1 - (2 * (found * targets).sum(1) + 1) / (found.sum(1) + targets.sum(1) + 1)
    return binary, dice[shown].mean() if bool(shown.any()) else dice.sum() * 0


def _joint_loss(
    kernel: Tensor, logs: Tensor, affinity: Tensor, grid: GridLabels, usable: Tensor, rng: torch.Generator
) -> Tensor:
    """() cross-entropy over background and classes; logs: (b, t, b, n) log densities of the classes."""
    images, patches, losses = len(usable), affinity.shape[1], []
    plain = (grid.valid - grid.classes.sum(1)).clamp(min=0)  # (b, t): background of all classes
    for query in range(images):
        chosen = _one_support_each(usable, query, rng)
        supports = [support for _, support in chosen]
        weights = torch.zeros_like(plain)
        weights[supports] = plain[supports]
        if len(chosen) < 2 or float(weights.sum()) < _LEAST:
            continue
        rows = kernel[query * patches : (query + 1) * patches]
        background = (rows @ weights.flatten() / weights.sum()).clamp(min=DENSITY_FLOOR).log()
        ratios = torch.stack([logs[query, :, support, way] - background for way, support in chosen], 1)
        logits = F.pad(affinity[query] @ ratios, (1, 0))  # (t, 1 + ways)
        shown = grid.classes[query, [way for way, _ in chosen]].T
        targets = torch.cat([(grid.valid[query] - shown.sum(1)).clamp(min=0)[:, None], shown], 1)
        losses.append(-(logits.log_softmax(1) * targets).sum() / targets.sum().clamp(min=1))
    return torch.stack(losses).mean() if losses else kernel.sum() * 0


def _one_support_each(usable: Tensor, query: int, rng: torch.Generator) -> list[tuple[int, int]]:
    """(class, support) for each class that another image than the query shows."""
    found = []
    for way in range(usable.shape[1]):
        images = [image for image in usable[:, way].nonzero()[:, 0].tolist() if image != query]
        if images:
            found.append((way, images[int(torch.randint(len(images), (1,), generator=rng))]))
    return found
