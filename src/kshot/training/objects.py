"""Where the object of a photograph is, for those who learn objectness: a given mask, or the region that stands out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.ops.geometry import FeatureMap, Frame, to_grid
from kshot.ops.prompt_masks import salient

_PATCH = 8  # of a frame that is as square as the view; any number does


def object_of(cells: Tensor, mask: NDArray[np.uint8] | None, objectness: Tensor | None = None) -> Tensor:
    """(grid, grid) in 0..1 for cells (c, grid, grid) of a photograph seen whole, its aspect ratio given up.

    mask: (h, w), what is marked is the object. Without one it is the region that stands out among the cells;
    objectness: (grid, grid) in 0..1, the prior of that.
    """
    side = cells.shape[1] * _PATCH
    if mask is None:
        return salient(FeatureMap(cells.clone(), Frame((side, side), (side, side), _PATCH), objectness=objectness))
    whole = Frame((mask.shape[0], mask.shape[1]), (side, side), _PATCH)
    return to_grid(torch.from_numpy((mask > 0).astype(np.float32)), whole)
