"""The network of `dense-comparison`: CANet's comparison, attention over shots and iterative refinement.

After Zhang et al., CVPR 2019, sections 4.1 to 4.3, with these differences: it reads frozen features of any backbone,
its dilations fit a grid of patches of 16 pixels (theirs has one of 8), groups are normalised where batches are too
small for batch norm, and, with `cosines`, the cosines of each cell with the class and the background come in beside
the features, as the prior of PFENet (Tian et al., TPAMI 2020, section 3.2) does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.errors import SettingError

_GROUPS = 8


@dataclass(frozen=True)
class Shape:
    """channels: of the features. width: of the head, a multiple of 8. rates: dilations. cosines: see above."""

    channels: int
    width: int = 64
    rates: tuple[int, ...] = (3, 6, 9)
    cosines: bool = True

    def __post_init__(self) -> None:
        if self.width < _GROUPS or self.width % _GROUPS:
            raise SettingError(f"width {self.width} of the head: expected a multiple of {_GROUPS}")


class Shown(NamedTuple):
    """shots: (k, c) vectors of one class, one a support that shows it. ground: (c,) mean background of all supports."""

    shots: Tensor
    ground: Tensor


class Comparison(nn.Module):
    """Query cells (c, gh, gw) and the vectors of classes to log odds (N, gh, gw) of each class."""

    def __init__(self, shape: Shape):
        super().__init__()
        width, self.shape = shape.width, shape
        self.reduce = nn.Conv2d(shape.channels, width, 1)
        self.compare = _conv(2 * width + 2 * shape.cosines, width)
        self.weigh = nn.Sequential(_conv(width, width), nn.MaxPool2d(3, 1, 1), nn.Conv2d(width, 1, 3, padding=1))
        self.merge = nn.Sequential(_conv(width + 2, width), nn.Conv2d(width, width, 3, padding=1))
        self.residuals = nn.ModuleList(
            nn.Sequential(_conv(width, width), nn.Conv2d(width, width, 3, padding=1)) for _ in range(2)
        )
        self.wide = nn.ModuleList(_conv(width, width, rate) for rate in shape.rates)
        self.whole = nn.Conv2d(width, width, 1)
        self.gather = nn.Sequential(nn.Conv2d((len(shape.rates) + 1) * width, width, 1), nn.ReLU())
        self.answer = nn.Conv2d(width, 2, 1)

    def compared(self, query: Tensor, classes: Sequence[Shown]) -> Tensor:
        """(N, width, gh, gw): dense comparison with each shot, then their mean by attention; their order is free."""
        return torch.cat([self._compared(query, shown) for shown in classes])

    def refined(self, compared: Tensor, before: Tensor) -> Tensor:
        """(N, 2, gh, gw) logits of background and class, from what was believed before: (N, 2, gh, gw) in 0..1."""
        x = F.relu(compared + self.merge(torch.cat([compared, before], 1)))
        for residual in self.residuals:
            x = F.relu(x + residual(x))
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand_as(x)
        out: Tensor = self.answer(self.gather(torch.cat([*(branch(x) for branch in self.wide), whole], 1)))
        return out

    def forward(self, query: Tensor, classes: Sequence[Shown], rounds: int) -> Tensor:
        """(N, gh, gw) log odds after `rounds` refinements of the first answer."""
        compared = self.compared(query, classes)
        logits = self.refined(compared, compared.new_zeros(len(compared), 2, *compared.shape[2:]))
        for _ in range(rounds):
            logits = self.refined(compared, logits.softmax(1))
        return odds(logits)

    def _compared(self, query: Tensor, shown: Shown) -> Tensor:
        shots = len(shown.shots)
        cells = self.reduce(query[None]).expand(shots, -1, -1, -1)
        vectors = self.reduce(shown.shots[:, :, None, None]).expand_as(cells)
        parts = [F.relu(cells), F.relu(vectors)]
        if self.shape.cosines:
            own = torch.einsum("kc,chw->khw", shown.shots, query)
            ground = torch.einsum("c,chw->hw", shown.ground, query).expand_as(own)
            parts.append(torch.stack([own, own - ground], 1))
        each: Tensor = self.compare(torch.cat(parts, 1))  # (k, width, gh, gw)
        if shots == 1:
            return each
        weights: Tensor = self.weigh(each).mean((2, 3), keepdim=True).softmax(0)  # (k, 1, 1, 1)
        return (weights * each).sum(0, keepdim=True)


def odds(logits: Tensor) -> Tensor:
    """Log odds (N, gh, gw) of class against background from both logits (N, 2, gh, gw)."""
    return logits[:, 1] - logits[:, 0]


def _conv(channels: int, width: int, rate: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=rate, dilation=rate), nn.GroupNorm(_GROUPS, width), nn.ReLU()
    )
