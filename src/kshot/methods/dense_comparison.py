"""Dense comparison by a trained head (CANet: Zhang et al., CVPR 2019) on frozen features.

The mean cell of each support's object is tiled over the query and compared by convolutions; attention weighs the shots;
the mask is refined some times with what was believed before. `kshot train episodic` learns the head on base classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kshot.errors import SettingError
from kshot.io.tensor_file import Learned
from kshot.methods import base
from kshot.methods._comparison import Comparison, Shape, Shown
from kshot.ops.geometry import FeatureMap
from kshot.ops.pooling import masked_average, stack_tokens

_UNSEEN = -20.0  # log odds of a class that no support shows


@dataclass(frozen=True)
class Settings:
    """weights: file or folder of a trained head. rounds: refinements of the first answer (the paper's 4)."""

    weights: str = field(default="", repr=False)
    rounds: int = 4

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise SettingError(f"rounds {self.rounds} of dense-comparison: expected 0 or more")


def shown(supports: Sequence[base.Support]) -> list[Shown]:
    """The vectors of each class, a row a support that shows it (none for a class that no support shows)."""
    tokens = torch.cat([support.features.tokens for support in supports])
    ground = masked_average(tokens, stack_tokens([support.background for support in supports]))
    found = []
    for way in range(supports[0].masks.shape[0]):
        vectors = [
            masked_average(support.features.tokens, support.masks[way].flatten())
            for support in supports
            if bool(support.masks[way].any())
        ]
        found.append(Shown(torch.stack(vectors) if vectors else tokens[:0], ground))
    return found


def build(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Comparison:
    """The head that training wrote; raises `SettingError` for tensors of another shape."""
    try:
        shape = Shape(**(dict(facts["shape"]) | {"rates": tuple(facts["shape"]["rates"])}))
        head = Comparison(shape)
        head.load_state_dict(dict(tensors))
    except (KeyError, TypeError, RuntimeError) as error:
        raise SettingError(f"damaged weights of dense-comparison ({error}); copy or train them again") from error
    return head.eval().requires_grad_(False)


class _Fitted(NamedTuple):
    head: Comparison
    classes: list[Shown]


class Task(base.Task):
    """Class logits are the head's log odds of each class against the background.

    Raises `SettingError` when it is made without trained weights.
    """

    method = "dense-comparison"
    Settings = Settings

    def _fitted(self) -> _Fitted:
        return _Fitted(_head(self.learned), shown(self.supports))

    def _score(self, features: FeatureMap) -> Tensor:
        head, classes = self.fitted
        logits = torch.full((len(classes) + 1, *features.grid_hw), _UNSEEN)
        logits[0] = 0
        for way, vectors in enumerate(classes, 1):  # one by one: memory stays that of a single class
            if len(vectors.shots):
                logits[way] = head(features.features, [vectors], self.settings.rounds)[0]
        return logits


def _head(learned: Learned | None) -> Comparison:
    if learned is None:
        raise SettingError(
            "dense-comparison needs a trained head: train one on base classes with `kshot train episodic DATA --root "
            "DIR --method dense-comparison -o RUN`, then give --set method.weights=RUN "
            "(method_settings={'weights': 'RUN'})"
        )
    return build(learned.facts, learned.tensors)
