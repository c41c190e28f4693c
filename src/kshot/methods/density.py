"""Kernel densities of foreground and background cells, and the logarithm of their ratio.

A cell belongs to a class as far as the class's support cells lie denser around it than the background's: the log
ratio of two von Mises-Fisher kernel densities, each normalised by the number of its cells, so that zero is the natural
threshold and a query may hold nothing of the class (density ratios as in FROST-like few-shot methods; the kernel after
Banerjee et al., JMLR 2005, section 2). Two more steps use the query itself: ratios are averaged over cells that look
alike (the region readout's idea), and the cells that are then confident join the supports of a second estimate, with
a share that falls to nothing when no cell is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.io.tensor_file import Learned
from kshot.methods import base
from kshot.methods._support_tokens import Cells, log_ratios
from kshot.ops.geometry import FeatureMap, coverage
from kshot.ops.similarity import vmf_means

_FLOOR = 1e-12
_TRACE = 1e-3  # part of a cell below which a class does not count as shown


@dataclass(frozen=True)
class Settings:
    """Chosen on development data: VOC train and half of coco-mini; pool and background on VOC val.

    kappa: concentration of the kernel. affinity: sharpness of the average over alike cells of the query, 0 for none.
    share: most that the query's own cells count for in the second estimate; 0 for one estimate only.
    mass: cells of a class in the query at which they count for half of that. doubt: logits by which the second
    estimate mistrusts a class. sharpness: of the confidences that it starts from. pool: side of the squares of cells
    that the query is compared with in itself; 2 is four times as fast as 1, and as accurate. background, foreground:
    cells that show nothing but background, or nothing but one class, are thinned evenly to about this number (of each
    class); those on a border, where most of what divides the two is, all stay. universal: how many supports'
    backgrounds the universal one counts as: the more supports there are, the less they need it. weights: file or folder
    of it; without one, the supports' own is all there is.
    """

    kappa: float = 20.0
    affinity: float = 10.0
    share: float = 0.5
    mass: float = 40.0
    doubt: float = 1.0
    sharpness: float = 4.0
    pool: int = 2
    background: int = 512
    foreground: int = 512
    universal: float = 1.0
    weights: str = field(default="", repr=False)


class Task(base.Task):
    """Log density ratios of classes to background; the classes are decided jointly."""

    method = "density"
    Settings = Settings

    def _fitted(self) -> Cells:
        return fit(self.supports, self.settings, self.learned)

    def _score(self, features: FeatureMap) -> Tensor:
        return readout(self.fitted, features, self.settings)


def fit(supports: Sequence[base.Support], settings: Settings, universal: Learned | None = None) -> Cells:
    """The supports' cells, those that are many and alike thinned, and those of the universal background."""
    parts = [_parts(support) for support in supports]  # (N+1, gh, gw) each
    pure = torch.stack([_pure(part).sum((1, 2)) for part in parts]).sum(0)  # (N+1,)
    most = torch.full_like(pure, settings.foreground)
    most[0] = settings.background
    strides = (pure / most).sqrt().ceil().clamp(min=1).int().tolist()
    kept = [_kept(support, part, strides) for support, part in zip(supports, parts, strict=True)]
    own = Cells(torch.cat([tokens for tokens, _ in kept]), torch.cat([weights for _, weights in kept]))
    if universal is None:
        return own
    grounds = sum(bool(support.background.any()) for support in supports)
    return _beside(own, universal, settings.universal / (settings.universal + grounds) if grounds else 1.0)


def _beside(own: Cells, universal: Learned, part: float) -> Cells:
    """Cells with those of the universal background, which then are `part` of all background."""
    if part < _TRACE:  # a thousand cells that count for nothing would still cost their cosines
        return own
    means, shares = universal.tensor("means"), universal.tensor("shares")  # (k, c), (k,) that sum to 1
    own_labels, labels = own.labels.clone(), torch.zeros(len(means), own.labels.shape[1])
    labels[:, 0] = part * shares * (own.labels[:, 0].sum() if part < 1 else 1)
    own_labels[:, 0] *= 1 - part
    return Cells(torch.cat([own.tokens, means.to(own.tokens)]), torch.cat([own_labels, labels]))


def readout(cells: Cells, features: FeatureMap, settings: Settings) -> Tensor:
    """Logits (N+1, gh, gw) of a query's cells."""
    query = features.tokens.contiguous()
    first = vmf_means(query, cells.tokens, cells.labels, settings.kappa)  # (q, N+1)
    logits: Tensor = Seen(features, settings).settle(first).T.reshape(-1, *features.grid_hw)
    return logits


class Seen:
    """What an image's q cells say of each other, whatever is sought in it.

    keys: (r, c) mean features of its regions, of unit length. part: (r,) cells that each region stands for.
    """

    def __init__(self, features: FeatureMap, settings: Settings):
        self.settings, self.regions = settings, _Regions(features, settings.pool)
        self.keys, self.part = self.regions.keys, self.regions.part
        own = features.tokens.contiguous() @ self.keys.T  # (q, r)
        sharp = settings.affinity
        self.alike = (sharp * own + self.part.log()).softmax(1) if sharp > 0 else None
        self.kernel = own.sub_(1).mul_(settings.kappa).exp_() if settings.share > 0 else None

    def settle(self, first: Tensor) -> Tensor:
        """Log ratios (q, ..., N+1) of densities by supports: averaged over alike cells, then estimated again."""
        settings = self.settings
        ratios = self._averaged(log_ratios(first, _FLOOR))
        if self.kernel is not None:
            labels = self.labels(_confident(ratios, settings))
            mass = labels.sum(0)
            share = settings.share * mass / (mass + settings.mass)
            second = (self.kernel @ labels.flatten(1)).view_as(first) / mass.clamp(min=1e-6)
            ratios = self._averaged(log_ratios((1 - share) * first + share * second, _FLOOR))
        return ratios

    def labels(self, parts: Tensor) -> Tensor:
        """(r, ...) cells of each region that are labelled, from parts (q, ...) in 0..1 of each cell."""
        of_regions = self.regions.mean(parts.flatten(1)) * self.part[:, None]
        return of_regions.view(-1, *parts.shape[1:])

    def _averaged(self, ratios: Tensor) -> Tensor:
        return ratios if self.alike is None else (self.alike @ self.regions.mean(ratios.flatten(1))).view_as(ratios)


def _parts(support: base.Support) -> Tensor:
    """(N+1, gh, gw): the part of each cell that shows the background and each class."""
    return torch.cat([support.background[None], support.masks])


def _pure(parts: Tensor) -> Tensor:
    """(N+1, gh, gw) bool: cells that show one thing and nothing else."""
    others = parts.sum(0) - parts
    return (parts > _TRACE) & (others < _TRACE)


def _kept(support: base.Support, parts: Tensor, strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Features (n, c) and weights (n, N+1) of a support's cells, pure ones on every `stride`-th row and column."""
    kept, weights = (parts > 0).any(0), parts.clone()
    for row, pure in enumerate(_pure(parts)):
        stand = torch.zeros_like(pure)
        stand[:: strides[row], :: strides[row]] = True
        stand &= pure
        if bool(stand.any()):  # what stays stands for what goes
            weights[row][stand] *= parts[row][pure].sum() / parts[row][stand].sum()
            kept &= stand | ~pure
    kept = kept.flatten()
    return support.features.tokens[kept], weights.flatten(1).T[kept]


class _Regions:
    """The query's cells, `pool` x `pool` of them taken together: all that it is compared with in itself.

    keys: (r, c) mean features of unit length. part: (r,) image part of each, in cells.
    """

    def __init__(self, features: FeatureMap, pool: int):
        self.pool, self.grid_hw = pool, features.grid_hw
        cells = coverage(features.frame).flatten()
        self.keys = F.normalize(self.mean(features.tokens), dim=1)
        self.part = self.mean(cells[:, None])[:, 0] * (len(cells) / len(self.keys))

    def mean(self, values: Tensor) -> Tensor:
        """(q, k) values of cells to (r, k) means over regions."""
        if self.pool == 1:
            return values
        planes = values.T.reshape(1, -1, *self.grid_hw)
        return F.avg_pool2d(planes, self.pool, ceil_mode=True, count_include_pad=False)[0].flatten(1).T.contiguous()


def _confident(ratios: Tensor, settings: Settings) -> Tensor:
    """(q, ..., N+1) what the first estimate makes of the query's own cells, in favour of the background."""
    logits = settings.sharpness * ratios
    logits[..., 1:] -= settings.doubt
    return logits.softmax(-1)
