"""Dense comparison by a trained head on frozen features (CANet: Zhang et al., CVPR 2019, sections 4.1 to 4.3).

1. The mean token of each support's object is tiled over the query and compared with it by convolutions.
2. Attention weighs the shots.
3. The mask is refined a few times, each time from the last answer.

It differs from the paper: it reads frozen features of any backbone; its dilations fit a grid of patches of 16 pixels
(the paper's has 8); it has group norm, as batches are small; and the cosines of each patch with class and background
join the features, like the prior of PFENet (Tian et al., TPAMI 2020, section 3.2). `kshot train episodic` trains the
head on base classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.errors import SettingError
from kshot.methods import base
from kshot.ops.geometry import FeatureMap
from kshot.ops.pooling import masked_average, stack_tokens

_ABSENT_LOGIT = -20.0  # of a class that no support shows
_GROUPS = 8


@dataclass(frozen=True)
class Settings:
    """Where the trained head lies, and the published number of refinements. Raises `SettingError`."""

    weights: str = field(default="", repr=False)
    """File or folder of a trained head."""
    rounds: int = 4
    """Refinements of the first answer (the paper's)."""

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise SettingError(f"rounds {self.rounds} of dense-comparison: expected 0 or more")


@dataclass(frozen=True)
class Shape:
    """Sizes of the head. Raises `SettingError` for a width that its groups do not divide."""

    channels: int
    """Of the features."""
    width: int = 64
    """Channels of the head, a multiple of 8."""
    rates: tuple[int, ...] = (3, 6, 9)
    """Dilations of the parallel branches."""
    cosines: bool = True
    """Whether cosines with class and background join the features."""

    def __post_init__(self) -> None:
        if self.width < _GROUPS or self.width % _GROUPS:
            raise SettingError(f"width {self.width} of the head: expected a multiple of {_GROUPS}")


class ClassPrototypes(NamedTuple):
    """What the head compares the query with, for one class."""

    shots: Tensor
    """(k, c) mean tokens, one for each support that shows the class."""
    background: Tensor
    """(c,) mean background token of all supports."""


def class_prototypes(supports: Sequence[base.Support]) -> list[ClassPrototypes]:
    """The prototypes of each class; without shots for a class that no support shows."""
    tokens = torch.cat([support.features.tokens for support in supports])
    background = masked_average(tokens, stack_tokens([support.background for support in supports]))
    found = []
    for way in range(supports[0].masks.shape[0]):
        shots = [
            masked_average(support.features.tokens, support.masks[way].flatten())
            for support in supports
            if bool(support.masks[way].any())
        ]
        found.append(ClassPrototypes(torch.stack(shots) if shots else tokens[:0], background))
    return found


class ComparisonHead(nn.Module):
    """From query features (c, gh, gw) and the prototypes of N classes to log odds (N, gh, gw)."""

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

    def forward(self, query: Tensor, classes: Sequence[ClassPrototypes], rounds: int) -> Tensor:
        """(N, gh, gw) log odds after `rounds` refinements of the first answer."""
        compared = self.compared(query, classes)
        logits = self.refined(compared, compared.new_zeros(len(compared), 2, *compared.shape[2:]))
        for _ in range(rounds):
            logits = self.refined(compared, logits.softmax(1))
        return log_odds(logits)

    def compared(self, query: Tensor, classes: Sequence[ClassPrototypes]) -> Tensor:
        """(N, width, gh, gw): dense comparison with each shot, then their mean by attention, in any order of shots."""
        return torch.cat([self._compared(query, prototypes) for prototypes in classes])

    def refined(self, compared: Tensor, before: Tensor) -> Tensor:
        """(N, 2, gh, gw) logits of background and class, from the last answer `before` (N, 2, gh, gw) in 0..1."""
        x = F.relu(compared + self.merge(torch.cat([compared, before], 1)))
        for residual in self.residuals:
            x = F.relu(x + residual(x))
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand_as(x)
        out: Tensor = self.answer(self.gather(torch.cat([*(branch(x) for branch in self.wide), whole], 1)))
        return out

    def _compared(self, query: Tensor, prototypes: ClassPrototypes) -> Tensor:
        shots = len(prototypes.shots)
        tokens = self.reduce(query[None]).expand(shots, -1, -1, -1)
        tiled = self.reduce(prototypes.shots[:, :, None, None]).expand_as(tokens)
        inputs = [F.relu(tokens), F.relu(tiled)]
        if self.shape.cosines:
            own = torch.einsum("kc,chw->khw", prototypes.shots, query)
            background = torch.einsum("c,chw->hw", prototypes.background, query).expand_as(own)
            inputs.append(torch.stack([own, own - background], 1))
        each: Tensor = self.compare(torch.cat(inputs, 1))  # (k, width, gh, gw)
        if shots == 1:
            return each
        weights: Tensor = self.weigh(each).mean((2, 3), keepdim=True).softmax(0)  # (k, 1, 1, 1)
        return (weights * each).sum(0, keepdim=True)


def log_odds(logits: Tensor) -> Tensor:
    """Log odds (N, gh, gw) of class against background from the logits (N, 2, gh, gw) of both."""
    return logits[:, 1] - logits[:, 0]


def _conv(channels: int, width: int, rate: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=rate, dilation=rate), nn.GroupNorm(_GROUPS, width), nn.ReLU()
    )


def build(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ComparisonHead:
    """The head that training wrote; raises `SettingError` for tensors of another shape."""
    try:
        head = ComparisonHead(Shape(**(dict(facts["shape"]) | {"rates": tuple(facts["shape"]["rates"])})))
        head.load_state_dict(dict(tensors))
    except (KeyError, TypeError, RuntimeError) as error:
        raise SettingError(f"damaged weights of dense-comparison ({error}); copy or train them again") from error
    return head.eval().requires_grad_(False)


class _Fitted(NamedTuple):
    head: ComparisonHead
    classes: list[ClassPrototypes]


class Task(base.Task):
    """Logits are the head's log odds of each class against the background.

    Raises `SettingError` when it is made without trained weights.
    """

    method = "dense-comparison"
    Settings = Settings

    def _fitted(self) -> _Fitted:
        if self.learned is None:
            raise SettingError(
                "dense-comparison needs a trained head: train one on base classes with `kshot train episodic DATA "
                "--root DIR --method dense-comparison -o RUN`, then give --set method.weights=RUN "
                "(method_settings={'weights': 'RUN'})"
            )
        return _Fitted(build(self.learned.facts, self.learned.tensors), class_prototypes(self.supports))

    def _score(self, features: FeatureMap) -> Tensor:
        head, classes = self.fitted
        logits = torch.full((len(classes) + 1, *features.grid_hw), _ABSENT_LOGIT)
        logits[0] = 0
        for way, prototypes in enumerate(classes, 1):  # one by one, to keep memory at that of a single class
            if len(prototypes.shots):
                logits[way] = head(features.features, [prototypes], self.settings.rounds)[0]
        return logits
