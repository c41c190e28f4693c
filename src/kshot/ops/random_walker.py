"""The random walker with priors on a graph of patch tokens (Grady, PAMI 2006; priors: Grady, CVPR 2005).

scipy is imported where it is needed: it takes long, and whoever gives masks needs no walker.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.ops.geometry import FeatureMap

NEIGHBOURS = 8  # most similar tokens that a patch is connected to; the last one sets its scale
_CHUNK = 1024  # rows of the similarity matrix at once: memory grows with n, not with n squared
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # half of the eight directions; edges are symmetric
_MIN_WEIGHT = 1e-4  # keeps the graph connected


@dataclass(frozen=True, eq=False)
class FeatureGraph:
    """A graph of the n patches of a grid."""

    weights: Any
    """(n, n) sparse, symmetric, not negative."""
    degree: NDArray[np.float64]
    """(n,) sums of its rows."""

    def random_walker(self, prior: Tensor, confidence: Tensor) -> Tensor:
        """Values (n,) near their prior (n,) where its confidence (n,) > 0 is high, and near their neighbours' values.

        They minimise x' L x + sum(confidence * (x - prior)^2) with the graph's Laplacian L.
        """
        from scipy import sparse
        from scipy.sparse.linalg import cg

        pull, start = confidence.double().numpy(), prior.double().numpy()
        diagonal = self.degree + pull
        system = sparse.diags(diagonal) - self.weights
        # A soft mask needs no more digits than this tolerance gives.
        found, _ = cg(system, pull * start, x0=start, M=sparse.diags(1 / diagonal), rtol=1e-3, maxiter=300)
        return torch.from_numpy(found).to(prior)


def build_feature_graph(features: FeatureMap) -> FeatureGraph:
    """Connect every patch with its eight neighbours and with the eight patches that have the most similar tokens.

    Weights are exp(-d_ij / sqrt(d_i d_j)), where d_i is the cosine distance of a token to its eighth most similar one
    (self-tuning affinities, Zelnik-Manor and Perona, NIPS 2004, section 2), so no setting depends on a backbone's range
    of cosines.
    """
    from scipy import sparse

    tokens = features.tokens
    count = len(tokens)
    far, similar = _most_similar(tokens)
    scale = far[:, -1].clamp(min=1e-4).sqrt()
    own = torch.arange(count)[:, None].expand_as(similar)
    others = own != similar
    starts, ends = [own[others]], [similar[others]]
    for down, right in _STEPS:
        start, end = _shifted(features.grid_hw, down, right)
        starts.append(start)
        ends.append(end)
    i, j = torch.cat(starts), torch.cat(ends)
    apart = (1 - (tokens[i] * tokens[j]).sum(1)).clamp(min=0)
    weights = torch.exp(-apart / (scale[i] * scale[j])) + _MIN_WEIGHT
    length = torch.cat([torch.full((len(s),), size) for s, size in zip(starts, (1, 1, 1, 2**0.5, 2**0.5), strict=True)])
    entries = (weights / length).double().numpy(), (i.numpy(), j.numpy())
    one_way = sparse.coo_matrix(entries, shape=(count, count)).tocsr()
    symmetric = one_way.maximum(one_way.T)  # an edge that only one end chose counts for both
    return FeatureGraph(symmetric, np.asarray(symmetric.sum(1), np.float64).ravel())


def _most_similar(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (n, k + 1) and indices (n, k + 1) of the most similar tokens, each token itself among them."""
    found = [
        (1 - rows @ tokens.T).topk(min(NEIGHBOURS + 1, len(tokens)), largest=False) for rows in tokens.split(_CHUNK)
    ]
    return torch.cat([f.values for f in found]).clamp(min=0), torch.cat([f.indices for f in found])


def _shifted(grid_hw: tuple[int, int], down: int, right: int) -> tuple[Tensor, Tensor]:
    """Indices of all pairs of patches that lie `down` rows and `right` columns apart."""
    rows, columns = grid_hw
    indices = torch.arange(rows * columns).reshape(rows, columns)
    left, cut = max(0, -right), max(0, right)
    return (
        indices[: rows - down, left : columns - cut].flatten(),
        indices[down:, left + right : columns - cut + right].flatten(),
    )
