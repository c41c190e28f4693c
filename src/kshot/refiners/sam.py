"""Masks of a Segment Anything model where they explain the scores better (Kirillov et al., ICCV 2023).

Each connected component of a class becomes a prompt: points where its scores peak, points off it where they are
lowest, and its box, as in PerSAM (Zhang et al., ICLR 2024) and Matcher (Liu et al., ICLR 2024). Of the masks that the
model proposes, the one with the highest contrast of scores between inside and outside is taken, where that is higher
than the component's own. Elsewhere the scores are those of plain interpolation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from kshot import sam
from kshot.ops.geometry import Frame, coverage, patch_centres, to_grid, to_pixels
from kshot.ops.mask_fit import contrast, peaks


@dataclass(frozen=True)
class Settings:
    """The model, its prompts, and what a mask of it does to the scores."""

    model: str = "facebook/sam-vit-base"
    """Hub id or local folder of a SAM."""
    components: int = 8
    """Most components of a class that are prompted, the largest first."""
    points: int = 3
    """Points on a component."""
    negative_points: int = 2
    """Points off it."""
    margin: int = 1
    """How far the box exceeds the component, and how far off it points may lie, patches."""
    strength: float = 2.0
    """Margin of the class inside the mask that is taken, and of the others outside, logits at least."""


def prepare(settings: Settings) -> None:
    """Load the model, which is kept in memory; raises `WeightsNotFoundError` and `BackboneError`."""
    sam.load(settings.model)


class _Component(NamedTuple):
    """A connected component of a class on the grid."""

    row: int
    """Of the class in the logits."""
    mask: Tensor
    """(gh, gw) bool."""
    near: Tensor
    """(gh, gw) bool: the component and the patches around it."""


def refine(logits: Tensor, frame: Frame, image: NDArray[np.uint8], settings: Settings) -> Tensor:
    """(N+1, gh, gw) logits to (N+1, h, w), with the contours of the masks of a SAM that are taken.

    Raises `WeightsNotFoundError` and `BackboneError` for a SAM that is not there.
    """
    plain = to_pixels(logits, frame)
    model = sam.load(settings.model)
    components = _components(logits, settings)
    if not components:
        return plain
    embedding = model.encode(image)
    winner = plain.argmax(0)
    for component in components:
        row = component.row
        points, labels, box = _prompt(logits[row], component, frame, settings)
        masks = model.propose(embedding, points[None], labels[None], box[None]).masks[0]  # (m, h, w)
        allowed = to_pixels(component.near.float(), frame) > 0.5
        own = (winner == row) & allowed
        taken = _best(masks & allowed, own, _margins(logits, row), frame)
        if taken is not None:
            _apply(plain, row, own, taken, settings.strength)
    return plain


def _components(logits: Tensor, settings: Settings) -> list[_Component]:
    winner = logits.argmax(0)
    found = []
    for row in range(1, len(logits)):
        labels, count = ndimage.label((winner == row).numpy(), np.ones((3, 3)))
        masks = [labels == number for number in range(1, count + 1)]
        for mask in sorted(masks, key=lambda mask: -int(mask.sum()))[: settings.components]:
            near = ndimage.binary_dilation(mask, np.ones((3, 3)), settings.margin) if settings.margin else mask
            found.append(_Component(row, torch.from_numpy(mask), torch.from_numpy(near)))
    return found


def _prompt(plane: Tensor, component: _Component, frame: Frame, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """Points (n, 2) with labels (n,), and a box (4,), in pixels of the image."""
    on = peaks(torch.where(component.mask, plane, -torch.inf), settings.points)
    off = peaks(torch.where(component.near & ~component.mask, -plane, -torch.inf), settings.negative_points)
    labels = torch.cat([torch.ones(len(on)), torch.zeros(len(off))])
    places = torch.cat([on, off])
    return patch_centres(frame)[places[:, 0], places[:, 1]], labels, _box(component.near, frame)


def _box(mask: Tensor, frame: Frame) -> Tensor:
    """(4,): the box around patches (gh, gw) bool, x0 y0 x1 y1 in pixels of the image."""
    rows, columns = mask.nonzero().T
    (height, width), inner = frame.size_hw, frame.inner_hw
    across = torch.stack([columns.min(), columns.max() + 1]) * frame.patch / inner[1]
    down = torch.stack([rows.min(), rows.max() + 1]) * frame.patch / inner[0]
    (x0, x1), (y0, y1) = across.clamp(max=1) * width, down.clamp(max=1) * height
    return torch.stack([x0, y0, x1, y1])


def _margins(logits: Tensor, row: int) -> Tensor:
    """(gh, gw): the logit of a class minus the highest of the others."""
    others = torch.cat([logits[:row], logits[row + 1 :]])
    return logits[row] - others.amax(0)


def _best(masks: Tensor, own: Tensor, margins: Tensor, frame: Frame) -> Tensor | None:
    """The mask (h, w) of highest contrast; None when none has more than the component's `own`."""
    covered = coverage(frame)
    # On the grid, where scores are known: interpolated ones would favour their own level sets.
    values = [contrast(margins, to_grid(mask.float(), frame), covered) for mask in (own, *masks)]
    best = int(np.argmax(values))
    return masks[best - 1] if best else None


def _apply(plain: Tensor, row: int, own: Tensor, mask: Tensor, strength: float) -> None:
    """Make class `row` win inside the mask, and lose its own pixels outside, by a margin of `strength` at least."""
    others = torch.cat([plain[:row], plain[row + 1 :]]).amax(0)
    inside = torch.where(mask, torch.maximum(plain[row], others + strength), plain[row])
    plain[row] = torch.where(own & ~mask, torch.minimum(inside, others - strength), inside)
