"""Universal backgrounds: which come with kshot, and how far one is to be believed beside the supports' own.

They are made by `kshot train background` from unlabelled photographs: means of cells, and no picture. `density` says
what they are for. Where images all look alike, as under a microscope, the supports' background is the queries' too,
and another one only blurs it; photographs are each of another place.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from kshot.io.tensor_file import Learned, read_learned
from kshot.methods.base import Support
from kshot.ops.similarity import vmf_means

LETTERS = 16  # of a backbone's identity in a file's name
_FOLDER = Path(__file__).parent / "backgrounds"
_MOST = 5  # supports whose background is sought in the others
_FAR = 0.28  # part of the grid's longer side within which cells of the same image look alike for no other reason
# Log ratio of own to universal background at which half of the universal one is taken, between images and within one.
_BETWEEN, _WITHIN = 2.5, 4.7
_STEEP, _FLOOR = 4.0, 1e-12


@lru_cache(maxsize=8)
def shipped(identity: str) -> Learned | None:
    """The universal background for features of a backbone, or None where none was made."""
    path = _FOLDER / f"{identity[:LETTERS]}.safetensors"
    return read_learned(path) if path.is_file() else None


def belief(supports: Sequence[Support], universal: Learned, kappa: float) -> float:
    """How far a universal background is to be believed, in 0..1.

    It is asked how much better than by the universal one a support's background is foretold by the others', or of a
    lone support by its own cells that lie far off. 1 where there is no background to ask.
    """
    shown = [support for support in supports if float(support.background.sum()) > 0]
    shown.sort(key=lambda support: float(support.features.features.sum()))  # an order of their own, not the caller's
    several = len(shown) > 1
    ratios = [_ratio(support, _others(shown, support), universal, kappa) for support in shown[:_MOST]]
    if not ratios:
        return 1.0
    centre = _BETWEEN if several else _WITHIN
    return float(torch.sigmoid(_STEEP * (centre - torch.stack(ratios).mean())))


def _others(shown: Sequence[Support], support: Support) -> list[Support]:
    return [other for other in shown if other is not support][:_MOST]


def _ratio(support: Support, others: Sequence[Support], universal: Learned, kappa: float) -> Tensor:
    """() mean log ratio of a background's densities by others, or by itself, and by the universal one."""
    tokens, background = support.features.tokens.contiguous(), support.background.flatten()
    means = universal.tensor("means").to(tokens)
    usual = vmf_means(tokens, means, universal.tensor("shares")[:, None], kappa)[:, 0]
    if others:
        cells = torch.cat([other.features.tokens for other in others])
        parts = torch.cat([other.background.flatten() for other in others])
        own = vmf_means(tokens, cells, parts[:, None], kappa)[:, 0]
    else:
        far = _far(support.features.grid_hw)
        kernel = ((tokens @ tokens.T - 1) * kappa).exp() * far
        own = (kernel @ background) / (far @ background).clamp(min=1e-6)
    ratios = own.clamp(min=_FLOOR).log() - usual.clamp(min=_FLOOR).log()
    return (ratios @ background) / background.sum()


def _far(grid_hw: tuple[int, int]) -> Tensor:
    """(cells, cells) 1.0 for pairs that lie far from each other."""
    rows, columns = grid_hw
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    reach = max(1, int(_FAR * max(grid_hw)))
    near = ((row[:, None] - row).abs() <= reach) & ((column[:, None] - column).abs() <= reach)
    return (~near).float()
