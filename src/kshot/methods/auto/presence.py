"""Whether a class is in a query at all: a small calibrated model over a few cues.

The log odds of presence are a weighted sum of `CUES`, fitted once for each backbone on episodes of labelled
photographs, half of whose queries lack the class (`kshot train background --masks`; logistic calibration: Platt, 1999).
Without such a model, a class is judged by how it scores in its own left-out supports.

Classes that one support shows together, such as a tower and its lamp, do not exclude each other and do not compete.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kshot.io.tensor_file import Learned
from kshot.methods.base import Support
from kshot.ops.geometry import FeatureMap

CUES = (
    *("log ratio", "log ratio over left-out supports", "image token", "log of the number of supports"),
    *("leads", "lead", "lead of the image token"),
)
_MAX_LEFT_OUT = 5.0  # a class's log ratio in left-out supports above it tells nothing more
# Without a model: log odds for each unit of the log ratio relative to that of left-out supports, of which a share of
# `_EVEN` has even odds.
_SLOPE, _EVEN, _MIN_LEFT_OUT = 3.5, 0.2, 0.2


def exclusive_pairs(supports: Sequence[Support]) -> Tensor:
    """(N, N) bool: pairs of different classes that no support shows together."""
    shown = torch.stack([support.masks.flatten(1).amax(1) > 0 for support in supports]).float()  # (k, N)
    return (shown.T @ shown == 0).fill_diagonal_(False)


def presence_cues(ratios: Tensor, left_out: Tensor, tokens: Tensor, counts: Tensor, exclusive: Tensor) -> Tensor:
    """(N, cues) the cues of each class, in the order of `CUES`.

    ratios: (N,) top-k log ratios in the query. left_out: (N,) the same in left-out supports. tokens: (N,) from
    `token_cosines`. counts: (N,) supports that show a class. exclusive: (N, N) from `exclusive_pairs`; without a
    competitor a class leads by nothing.
    """
    competes = exclusive.any(1)
    leads = [
        torch.where(competes, values - values.expand(len(values), -1).masked_fill(~exclusive, -torch.inf).amax(1), 0.0)
        for values in (ratios, tokens)
    ]
    of_class = [ratios, ratios - left_out.clamp(max=_MAX_LEFT_OUT), tokens, counts.clamp(min=1).log()]
    return torch.stack([*of_class, competes.float(), *leads], 1)


def token_cosines(supports: Sequence[Support], features: FeatureMap) -> Tensor:
    """(N,) largest cosine of the query's image token with that of a support that shows the class.

    0 where the backbone gives no image tokens, or no support with one shows the class.
    """
    found = torch.zeros(supports[0].masks.shape[0])
    if features.token is None:
        return found
    having = [s for s in supports if s.features.token is not None and s.kind != "text"]
    if not having:
        return found
    tokens = torch.stack([s.features.token for s in having if s.features.token is not None]).float().cpu()  # (s, c)
    shown = torch.stack([s.masks.flatten(1).amax(1) > 0 for s in having]).cpu()  # (s, N)
    best = torch.where(shown, (tokens @ features.token.float().cpu())[:, None], 0.0).amax(0)
    return found.maximum(best)


def model_of(prior: Learned | None) -> Tensor | None:
    """(cues + 1,) the presence model that a background prior holds; None where it holds none over these cues."""
    if prior is None or "presence" not in prior.tensors or list(prior.facts.get("cues", ())) != list(CUES):
        return None
    return prior.tensor("presence")


def modelled_log_odds(cues: Tensor, model: Tensor) -> Tensor:
    """(N,) log odds of presence from cues (N, cues); model: (cues + 1,) their weights, and the constant."""
    return cues @ model[:-1] + model[-1]


def left_out_log_odds(ratios: Tensor, left_out: Tensor) -> Tensor:
    """(N,) log odds of presence from top-k log ratios (N,), relative to those of left-out supports (N,)."""
    return _SLOPE * (ratios / left_out.clamp(_MIN_LEFT_OUT, _MAX_LEFT_OUT) - _EVEN)
