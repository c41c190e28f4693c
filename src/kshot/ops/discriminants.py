"""Linear discriminants beside patch tokens: directions in which kinds of things differ and images of one kind do not.

Tokens of one kind of thing differ by pose, light and place, and most of a token's dimensions say such things. Linear
discriminant analysis (Fisher, 1936) finds, on labelled photographs, the directions in which kinds lie far apart
relative to how far images of one kind do. Where a joined token is compared, its cosine is the weighted mean of the
token's own cosine and of that along the discriminants, so that what no photograph taught is told apart as before.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.errors import TrainingError

_MIN_KINDS = 3
_SHRINKAGE = 0.6  # of the covariance within kinds towards a multiple of the identity: few images, many dimensions


@dataclass(frozen=True, eq=False)
class Discriminants:
    """Directions, and how much they count."""

    mean: Tensor
    """(c,) taken off a token before it is projected."""
    directions: Tensor
    """(c, d) what it is projected on."""
    share: float = 1.0
    """Of the discriminants in the cosine of two joined tokens, in 0..1; the tokens' own have the rest."""

    def project(self, tokens: Tensor) -> Tensor:
        """(n, d) of unit length, from patch tokens (n, c)."""
        return F.normalize((F.normalize(tokens.float(), dim=1) - self.mean) @ self.directions, dim=1)

    def join(self, tokens: Tensor, projected: Tensor | None = None) -> Tensor:
        """(n, c + d) of the length of the tokens (n, c); projected: the second part, where it is known (n, d)."""
        projected = self.project(tokens) if projected is None else projected
        return torch.cat([(1 - self.share) ** 0.5 * tokens.float(), self.share**0.5 * projected], 1)


def fit_discriminants(
    tokens: Tensor, kinds: Sequence[str], count: int = 64, shrinkage: float = _SHRINKAGE
) -> Discriminants:
    """At most `count` discriminants of tokens (n, c), one for each image and kind, of which `kinds` has n.

    Each kind counts alike, however many images show it; kinds of one image are left out. shrinkage: of the covariance
    within kinds, in 0..1. Raises `TrainingError` for fewer than three kinds with several images each.
    """
    names = sorted(kind for kind, images in Counter(kinds).items() if images > 1)
    if len(names) < _MIN_KINDS:
        raise TrainingError(
            f"{len(names)} kinds of things with several images: too few to learn from how they differ; give data sets "
            "with more classes (--discriminants)"
        )
    places = {name: place for place, name in enumerate(names)}
    kept = [index for index, kind in enumerate(kinds) if kind in places]
    values = F.normalize(tokens[kept].double(), dim=1)
    which = torch.tensor([places[kinds[index]] for index in kept])
    counts = torch.bincount(which).double()
    means = torch.zeros(len(names), values.shape[1]).double().index_add_(0, which, values) / counts[:, None]
    rest = (values - means[which]) / counts[which, None].sqrt()
    within = rest.T @ rest / len(names)
    size = len(within)
    within = (1 - shrinkage) * within + shrinkage * within.trace() / size * torch.eye(size).double()
    lengths, axes = torch.linalg.eigh(within)
    whitened = axes / lengths.sqrt()
    mean = means.mean(0)
    _, turned = torch.linalg.eigh((whitened.T @ (means - mean).T) @ ((means - mean) @ whitened))
    directions = whitened @ turned.flip(1)[:, : min(count, len(names) - 1)]
    return Discriminants(mean.float(), directions.float())
