"""GF-SAM: a graph of points and the SAM masks that cover them (Zhang et al., NeurIPS 2024, sections 3.2 to 3.4).

1. The centre of every patch that a class wins is a point. The scores are log ratios of kernel densities, as in
   `density`, whose zero is absolute; the paper's similarity is relative to each query and always finds something.
2. A Segment Anything model (SAM) gives a mask for each point.
3. A point has an edge to each point that its mask covers. The weakly connected components of this graph are groups of
   points on one object, and the union of a component's masks is a candidate.
4. A candidate replaces the patches of its points where that raises the contrast of scores between inside and outside;
   otherwise they stay, so masks that do not fit do no harm. The paper filters candidates by thresholds instead.

Logits are those of patches; the refiners `crf` and `sam` add the contours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from kshot import sam
from kshot.errors import SettingError
from kshot.methods import base
from kshot.methods._support_tokens import SupportTokens, log_ratios, stack_supports
from kshot.ops.geometry import FeatureMap, Frame, coverage, patch_centres, to_grid
from kshot.ops.mask_fit import contrast
from kshot.ops.similarity import vmf_means


@dataclass(frozen=True)
class Settings:
    """The paper's model; the other values are kshot's."""

    model: str = "facebook/sam-vit-huge"
    """Hub id or local folder of a SAM."""
    max_points: int = 64
    """Points for each class; where there are more, they are taken evenly."""
    kappa: float = 20.0
    """Concentration of the kernel, as in `density`."""
    strength: float = 2.0
    """Logits by which patches that a candidate adds, or removes, win or lose."""


def prepare(settings: Settings) -> None:
    """Load the SAM and keep it in memory; raises `WeightsNotFoundError` and `BackboneError`."""
    sam.load(settings.model)


class Task(base.Task):
    """Logits of patches, corrected by candidates that fit the scores better.

    Raises `WeightsNotFoundError` and `BackboneError` when it is made without a SAM, and `SettingError` when it scores
    without the image.
    """

    method = "sam-graph"
    Settings = Settings
    reads_banks = True

    def _fitted(self) -> SupportTokens:
        prepare(self.settings)  # a task may come from a file, without a Segmenter
        return stack_supports(self.supports)

    def _score(self, features: FeatureMap) -> Tensor:
        raise SettingError(
            "sam-graph prompts a SAM on the image itself: call task.score(features, image), or use "
            "Segmenter.predict, which does"
        )

    def _score_with_image(self, features: FeatureMap, image: NDArray[np.uint8]) -> Tensor:
        tokens, labels = self.fitted[:2]
        densities = vmf_means(features.tokens.contiguous(), tokens, labels, self.settings.kappa)
        logits = log_ratios(densities).T.reshape(-1, *features.grid_hw)
        winner = logits.argmax(0)
        if bool((winner > 0).any()):
            model = sam.load(self.settings.model)
            embedding = model.encode(image)
            for row in range(1, len(logits)):
                if bool((winner == row).any()):
                    _correct(logits, row, winner == row, features.frame, (model, embedding), self.settings)
        return logits


def _correct(
    logits: Tensor,
    row: int,
    won: Tensor,
    frame: Frame,
    sam_of_image: tuple[sam.Promptable, sam.ImageEmbedding],
    settings: Settings,
) -> None:
    """Let candidates that raise the contrast replace patches of class `row`, which won those in `won` (gh, gw)."""
    inside = coverage(frame)
    others = torch.cat([logits[:row], logits[row + 1 :]]).amax(0)
    margins = logits[row] - others
    patches = won.nonzero()  # (n, 2)
    picked = patches[torch.linspace(0, len(patches) - 1, min(settings.max_points, len(patches))).round().long()]
    masks = _masks(sam_of_image, patch_centres(frame)[picked[:, 0], picked[:, 1]], frame)  # (p, gh, gw)
    nearest = torch.cdist(patches.float(), picked.float()).argmin(1)  # the point that stands for each patch
    shown = won.to(margins)
    reached = contrast(margins, shown, inside)
    for group in _components(masks, picked, margins):
        candidate = shown.clone()
        explained = patches[torch.isin(nearest, group)]
        candidate[explained[:, 0], explained[:, 1]] = 0
        candidate = torch.maximum(candidate, masks[group].amax(0))
        value = contrast(margins, candidate, inside)
        if value > reached:
            shown, reached = candidate, value
    _write(logits, row, others, won, shown, settings.strength)


def _masks(sam_of_image: tuple[sam.Promptable, sam.ImageEmbedding], points: Tensor, frame: Frame) -> Tensor:
    """(p, gh, gw) in 0..1: the fraction of each patch in each point's mask, the best by SAM's own estimate."""
    model, embedding = sam_of_image
    proposals = model.propose(embedding, points[:, None], torch.ones(len(points), 1), out_hw=frame.inner_hw)
    best = proposals.masks[torch.arange(len(points)), proposals.quality.argmax(1)]
    return to_grid(best.float(), Frame(frame.inner_hw, frame.inner_hw, frame.patch))


def _components(masks: Tensor, points: Tensor, margins: Tensor) -> Iterator[Tensor]:
    """Indices of the points in each weakly connected component of "its mask covers", the likeliest component first."""
    covers = masks[:, points[:, 0], points[:, 1]] > 0.5  # (p, p)
    count, labels = connected_components(covers.numpy(), directed=True, connection="weak")
    groups = [torch.from_numpy(labels == number).nonzero()[:, 0] for number in range(count)]
    likely = margins[points[:, 0], points[:, 1]]
    yield from sorted(groups, key=lambda group: -float(likely[group].sum()))


def _write(logits: Tensor, row: int, others: Tensor, won: Tensor, shown: Tensor, strength: float) -> None:
    """Where `shown` (gh, gw) in 0..1 differs from what class `row` won, its logits win or lose by `strength`."""
    margin = strength * (2 * shown - 1)
    gained, lost = ~won & (shown > 0.5), won & (shown < 0.5)
    logits[row] = torch.where(gained | lost, others + margin, logits[row])
