"""Masks of a Segment Anything model where they explain the scores better (Kirillov et al., ICCV 2023).

Each connected part of a class becomes a prompt: points where its scores peak, points off it where they are lowest,
and its box, as PerSAM (Zhang et al., ICLR 2024) and Matcher (Liu et al., ICLR 2024) do. Of the masks that come back the
one with the highest contrast of scores between inside and outside is taken, and only when the part itself has less.
Where masks are refused, the scores are those of plain interpolation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from kshot import sam
from kshot.ops.geometry import Frame, cell_centres, coverage, to_grid, to_pixels
from kshot.ops.regions import contrast, peaks


@dataclass(frozen=True)
class Settings:
    """model: Hub id or local folder of a SAM. parts: most parts of a class that are prompted, the largest first.

    points, away: points on a part and off it. margin: by which a box exceeds its part, and how far points off it
    may lie, patches. strength: logits that a mask that was taken gives at least, inside and out.
    """

    model: str = "facebook/sam-vit-base"
    parts: int = 8
    points: int = 3
    away: int = 2
    margin: int = 1
    strength: float = 2.0


def prepare(settings: Settings) -> None:
    """Load the SAM, which is kept; raises `WeightsNotFoundError` and `BackboneError`."""
    sam.load(settings.model)


class _Part(NamedTuple):
    """A connected part of class `row`. cells: (gh, gw) bool. near: the same with the cells around."""

    row: int
    cells: Tensor
    near: Tensor


def refine(logits: Tensor, frame: Frame, picture: NDArray[np.uint8], settings: Settings) -> Tensor:
    """(N+1, gh, gw) logits to (N+1, h, w), with the contours of masks that were taken.

    Raises `WeightsNotFoundError` and `BackboneError` for a SAM that is not there.
    """
    plain = to_pixels(logits, frame)
    model = sam.load(settings.model)
    parts = _parts(logits, settings)
    if not parts:
        return plain
    seen = model.see(picture)
    winner = plain.argmax(0)
    for part in parts:
        points, labels, box = _prompt(logits[part.row], part, frame, settings)
        masks = model.propose(seen, points[None], labels[None], box[None]).masks[0]  # (m, h, w)
        allowed = to_pixels(part.near.float(), frame) > 0.5
        own = (winner == part.row) & allowed
        taken = _best(masks & allowed, own, _margins(logits, part.row), frame)
        if taken is not None:
            _write(plain, part.row, own, taken, settings.strength)
    return plain


def _parts(logits: Tensor, settings: Settings) -> list[_Part]:
    winner = logits.argmax(0)
    found = []
    for row in range(1, len(logits)):
        labels, count = ndimage.label((winner == row).numpy(), np.ones((3, 3)))
        parts = [labels == number for number in range(1, count + 1)]
        for cells in sorted(parts, key=lambda part: -int(part.sum()))[: settings.parts]:
            near = ndimage.binary_dilation(cells, np.ones((3, 3)), settings.margin) if settings.margin else cells
            found.append(_Part(row, torch.from_numpy(cells), torch.from_numpy(near)))
    return found


def _prompt(plane: Tensor, part: _Part, frame: Frame, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """Points (n, 2) with labels (n,), and a box (4,), in pixels of the picture."""
    on = peaks(torch.where(part.cells, plane, -torch.inf), settings.points)
    off = peaks(torch.where(part.near & ~part.cells, -plane, -torch.inf), settings.away)
    labels = torch.cat([torch.ones(len(on)), torch.zeros(len(off))])
    places = torch.cat([on, off])
    return cell_centres(frame)[places[:, 0], places[:, 1]], labels, _box(part.near, frame)


def _box(cells: Tensor, frame: Frame) -> Tensor:
    """(4,): the box around cells (gh, gw) bool, x0 y0 x1 y1 in pixels of the picture."""
    rows, columns = cells.nonzero().T
    (height, width), inner = frame.size_hw, frame.inner_hw
    across = torch.stack([columns.min(), columns.max() + 1]) * frame.patch / inner[1]
    down = torch.stack([rows.min(), rows.max() + 1]) * frame.patch / inner[0]
    (x0, x1), (y0, y1) = across.clamp(max=1) * width, down.clamp(max=1) * height
    return torch.stack([x0, y0, x1, y1])


def _margins(logits: Tensor, row: int) -> Tensor:
    """(gh, gw): how far a class is above the best of the others."""
    others = torch.cat([logits[:row], logits[row + 1 :]])
    return logits[row] - others.amax(0)


def _best(masks: Tensor, own: Tensor, margins: Tensor, frame: Frame) -> Tensor | None:
    """The mask (h, w) of highest contrast, None when the part's own is not beaten."""
    part = coverage(frame)
    # On the grid, where scores are known: interpolated ones would favour their own level sets.
    values = [contrast(margins, to_grid(mask.float(), frame), part) for mask in (own, *masks)]
    best = int(np.argmax(values))
    return masks[best - 1] if best else None


def _write(plain: Tensor, row: int, own: Tensor, mask: Tensor, strength: float) -> None:
    """Make class `row` win in the mask, and lose what it had of its part outside, by `strength` at least."""
    others = torch.cat([plain[:row], plain[row + 1 :]]).amax(0)
    inside = torch.where(mask, torch.maximum(plain[row], others + strength), plain[row])
    plain[row] = torch.where(own & ~mask, torch.minimum(inside, others - strength), inside)
