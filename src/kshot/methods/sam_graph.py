"""GF-SAM: a graph of points and the SAM masks that cover them (Zhang et al., NeurIPS 2024, sections 3.2 to 3.4).

Every query cell that looks like a class gives a point in its middle, and every point a mask of a Segment Anything
model. A point has an edge to each point that its mask covers; the weakly connected components of that graph are groups
of points that lie on one thing, and the union of a component's masks is a candidate. The paper then filters candidates
by thresholds on similarity. Here one replaces the cells of its points when the contrast of scores between inside and
outside rises, and otherwise those cells stay as they are: so a model that sees nothing in a picture spoils nothing.

The likeness is the log ratio of kernel densities of the class and the background, as in the method `density`, whose
zero is absolute; the paper's is relative to each query and always finds something. Logits are those of cells; refiners
`crf` or `sam` bring the contours back.
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
from kshot.methods._support_tokens import Cells, gather, log_ratios
from kshot.ops.geometry import FeatureMap, Frame, cell_centres, coverage, to_grid
from kshot.ops.regions import contrast
from kshot.ops.similarity import vmf_means


@dataclass(frozen=True)
class Settings:
    """model: Hub id or local folder of a SAM; the paper's is the huge one.

    points: most points of a class, taken evenly where there are more. kappa: concentration of the kernel, density's.
    strength: logits that a mask that was taken gives at least.
    """

    model: str = "facebook/sam-vit-huge"
    points: int = 64
    kappa: float = 20.0
    strength: float = 2.0


def prepare(settings: Settings) -> None:
    """Load the SAM, which is kept; raises `WeightsNotFoundError` and `BackboneError`."""
    sam.load(settings.model)


class Task(base.Task):
    """Class logits of cells, corrected by the masks of components that fit them better.

    Raises `WeightsNotFoundError` and `BackboneError` when it is made without a SAM, and `SettingError` when it scores
    without the picture.
    """

    method = "sam-graph"
    Settings = Settings

    def _fitted(self) -> Cells:
        prepare(self.settings)  # a task may come from a file, without a Segmenter
        return gather(self.supports)

    def _score(self, features: FeatureMap) -> Tensor:
        raise SettingError(
            "sam-graph prompts a SAM on the picture itself: give task.score(features, picture), or use "
            "Segmenter.predict, which does"
        )

    def _score_seen(self, features: FeatureMap, picture: NDArray[np.uint8]) -> Tensor:
        tokens, labels = self.fitted
        densities = vmf_means(features.tokens.contiguous(), tokens, labels, self.settings.kappa)
        logits = log_ratios(densities).T.reshape(-1, *features.grid_hw)
        winner = logits.argmax(0)
        if bool((winner > 0).any()):
            model = sam.load(self.settings.model)
            seen = model.encode(picture)
            for row in range(1, len(logits)):
                if bool((winner == row).any()):
                    _correct(logits, row, winner == row, features.frame, (model, seen), self.settings)
        return logits


def _correct(
    logits: Tensor,
    row: int,
    won: Tensor,
    frame: Frame,
    sight: tuple[sam.Promptable, sam.ImageEmbedding],
    settings: Settings,
) -> None:
    """Let the components' masks that raise the contrast replace cells of class `row`, which `won` (gh, gw)."""
    part = coverage(frame)
    others = torch.cat([logits[:row], logits[row + 1 :]]).amax(0)
    margins = logits[row] - others
    cells = won.nonzero()  # (n, 2)
    picked = cells[torch.linspace(0, len(cells) - 1, min(settings.points, len(cells))).round().long()]
    masks = _masks(sight, cell_centres(frame)[picked[:, 0], picked[:, 1]], frame)  # (p, gh, gw)
    nearest = torch.cdist(cells.float(), picked.float()).argmin(1)  # the point that stands for each cell
    shown = won.to(margins)
    reached = contrast(margins, shown, part)
    for group in _components(masks, picked, margins):
        candidate = shown.clone()
        explained = cells[torch.isin(nearest, group)]
        candidate[explained[:, 0], explained[:, 1]] = 0
        candidate = torch.maximum(candidate, masks[group].amax(0))
        value = contrast(margins, candidate, part)
        if value > reached:
            shown, reached = candidate, value
    _write(logits, row, others, won, shown, settings.strength)


def _masks(sight: tuple[sam.Promptable, sam.ImageEmbedding], points: Tensor, frame: Frame) -> Tensor:
    """(p, gh, gw) in 0..1: the part of each cell in each point's mask, of its three the one SAM expects most of."""
    model, seen = sight
    proposals = model.propose(seen, points[:, None], torch.ones(len(points), 1), out_hw=frame.inner_hw)
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
    """Where `shown` (gh, gw) in 0..1 departs from what class `row` won, its logits follow."""
    lean = strength * (2 * shown - 1)
    gained, lost = ~won & (shown > 0.5), won & (shown < 0.5)
    logits[row] = torch.where(gained | lost, others + lean, logits[row])
