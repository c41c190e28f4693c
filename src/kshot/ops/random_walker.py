"""Which cells belong together: a graph over the grid, and how values settle on it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg
from torch import Tensor

from kshot.ops.geometry import FeatureMap

NEIGHBOURS = 8  # look-alikes that a cell is tied to, and the one that sets its scale
_CHUNK = 1024  # rows of the similarity matrix held at once: memory grows with n, not with n squared
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # half of the eight directions; the other half is their mirror
_LEAST = 1e-4  # no cell is cut off for good


@dataclass(frozen=True, eq=False)
class Graph:
    """Ties between the n cells of a grid. weights: (n, n) sparse, symmetric, not negative. degree: (n,) row sums."""

    weights: Any
    degree: NDArray[np.float64]

    def settle(self, wanted: Tensor, trust: Tensor) -> Tensor:
        """Values (n,) that stay near `wanted` (n,) as far as `trust` (n,) > 0 says, and near their neighbours.

        The random walker with priors (Grady, PAMI 2006; priors: Grady, CVPR 2005): the minimum of
        x' L x + sum(trust * (x - wanted)^2) with the graph's Laplacian L.
        """
        pull, start = trust.double().numpy(), wanted.double().numpy()
        diagonal = self.degree + pull
        system = sparse.diags(diagonal) - self.weights
        # The start and the scale are good, and a soft mask needs no more digits.
        found, _ = cg(system, pull * start, x0=start, M=sparse.diags(1 / diagonal), rtol=1e-3, maxiter=300)
        return torch.from_numpy(found).to(wanted)


def tie(features: FeatureMap) -> Graph:
    """The graph of a FeatureMap: every cell with its eight neighbours and with its look-alikes.

    Weights are exp(-d_ij / sqrt(d_i d_j)), where d_i is a cell's own distance to its eighth look-alike (self-tuning
    affinities, Zelnik-Manor and Perona, NIPS 2004, section 2): so no setting depends on a backbone's range of cosines.
    """
    tokens = features.tokens
    count = len(tokens)
    far, alike = _look_alikes(tokens)
    scale = far[:, -1].clamp(min=1e-4).sqrt()
    cells = torch.arange(count)[:, None].expand_as(alike)
    others = cells != alike
    starts, ends = [cells[others]], [alike[others]]
    for down, right in _STEPS:
        start, end = _shifted(features.grid_hw, down, right)
        starts.append(start)
        ends.append(end)
    i, j = torch.cat(starts), torch.cat(ends)
    apart = (1 - (tokens[i] * tokens[j]).sum(1)).clamp(min=0)
    tied = torch.exp(-apart / (scale[i] * scale[j])) + _LEAST
    length = torch.cat([torch.full((len(s),), size) for s, size in zip(starts, (1, 1, 1, 2**0.5, 2**0.5), strict=True)])
    entries = (tied / length).double().numpy(), (i.numpy(), j.numpy())
    one_way = sparse.coo_matrix(entries, shape=(count, count)).tocsr()
    # A tie that only one end chose counts for both.
    weights = one_way.maximum(one_way.T)
    return Graph(weights, np.asarray(weights.sum(1), np.float64).ravel())


def _look_alikes(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (n, k + 1) and indices (n, k + 1) of the nearest cells by cosine, the cell itself among them."""
    found = [
        (1 - rows @ tokens.T).topk(min(NEIGHBOURS + 1, len(tokens)), largest=False) for rows in tokens.split(_CHUNK)
    ]
    return torch.cat([f.values for f in found]).clamp(min=0), torch.cat([f.indices for f in found])


def _shifted(grid_hw: tuple[int, int], down: int, right: int) -> tuple[Tensor, Tensor]:
    """Indices of all pairs of cells that lie `down` rows and `right` columns apart."""
    rows, columns = grid_hw
    cells = torch.arange(rows * columns).reshape(rows, columns)
    left, cut = max(0, -right), max(0, right)
    return (
        cells[: rows - down, left : columns - cut].flatten(),
        cells[down:, left + right : columns - cut + right].flatten(),
    )
