"""Supports and queries small enough for a pencil: rows of cells with features of two dimensions."""

import math

import torch

from kshot.io.tensor_file import Learned
from kshot.methods.base import FeatureSpec, Support
from kshot.ops.geometry import FeatureMap, Frame

SPEC = FeatureSpec("hand", "hand", (), 8, 8)


def row(*cells: tuple[float, float]) -> FeatureMap:
    """A grid of one row of cells."""
    size = (8, 8 * len(cells))
    return FeatureMap(torch.tensor(cells, dtype=torch.float32).T[:, None], Frame(size, size, 8), "hand")


def support(features: FeatureMap, *masks: list[float], valid_mask: list[float] | None = None) -> Support:
    grid = torch.tensor(masks, dtype=torch.float32)[:, None]
    return Support(
        features,
        grid,
        torch.ones(features.grid_hw) if valid_mask is None else torch.tensor([valid_mask], dtype=torch.float32),
    )


def around(columns: int, turned: bool) -> Support:
    """One row whose last cell is the class; the background is alike all over, or turns round once."""
    angles = torch.linspace(0, 2 * math.pi if turned else 0.0, columns)
    features = torch.stack([angles.cos(), angles.sin()])[:, None]
    mask = torch.zeros(1, 1, columns)
    mask[..., -1] = 1
    size = (8, 8 * columns)
    return Support(FeatureMap(features, Frame(size, size, 8), "hand"), mask, torch.ones(1, columns))


def random_support(seed: int, cells: int = 60, dim: int = 8) -> Support:
    """A row of random cells, the first third of a class."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(dim, 1, cells, generator=generator), dim=0)
    size = (8, 8 * cells)
    masks = (torch.arange(cells) < cells // 3).float()[None, None]
    return Support(FeatureMap(features, Frame(size, size, 8), "hand"), masks, torch.ones(1, cells))


def areas(*of_supports: int, ways: int = 1) -> list[Support]:
    """Random supports of 60 cells, each with so many cells of the class at its place, the classes by turns."""
    made = []
    for index, area in enumerate(of_supports):
        drawn = random_support(index)
        masks = torch.zeros(ways, 1, 60)
        masks[index % ways, 0, :area] = 1
        made.append(Support(drawn.features, masks, drawn.valid_mask))
    return made


def strange_prior(identity: str = "hand", width: int = 8) -> Learned:
    """A background prior that no random token resembles, so that it gets no weight: images look alike."""
    facts = {"method": "density", "identity": identity, "backbone": "hand"}
    return Learned(facts, {"means": torch.full((4, width), -1e-3), "shares": torch.full((4,), 0.25)})
