"""Fit the presence model of `auto` on labelled photographs: what the cues say when a class is there, and when not.

Episodes of protocol `fs-cs`, whose queries lack each class half of the time, with one and two classes, one and five
supports. The model is a logistic regression (Platt, 1999) over the method's `CUES`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.data.base import Dataset
from kshot.episodes.sampler import draw_episodes
from kshot.errors import DatasetError, TrainingError
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from kshot.segmenter import Segmenter

_KINDS = ((1, 1), (2, 1), (1, 5), (2, 5))  # (way, shot)
_DECAY = 1e-2  # of the weights of standardised cues, so that cues that say the same share their weight
_MIN_SAMPLES = 50


def episode_cues(
    segmenter: Segmenter, data: Sequence[Dataset], episodes: int, seed: int, step: Callable[[int, int], None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Cues (n, cues), presence (n,) and kind (n,) of every class of every episode; step: called with (done, total).

    kind: a number for each data set and each of four kinds of episodes.

    segmenter: of method `auto`. episodes: of each data set and each of four kinds; a kind for which a data set has too
    few images is left out. Raises `TrainingError` for fewer than fifty in all.
    """
    cues, present, kinds = [], [], []
    total = len(data) * len(_KINDS) * episodes
    for number, each in enumerate(data):
        runner = EpisodeRunner(segmenter, each, FeatureCache(None))
        for kind, (way, shot) in enumerate(_KINDS):
            try:
                drawn = draw_episodes(each, "fs-cs", way, shot, episodes, seed, drop_small=True)
            except DatasetError:
                continue
            for place, episode in enumerate(drawn):
                task: Any = segmenter.method.Task(
                    tuple(each.classes[c - 1] for c in episode.classes),
                    runner.supports(episode),
                    segmenter.feature_spec,
                    segmenter.settings,
                )
                features = runner.features(episode.query)
                cues.append(task.presence_cues(features, task.score(features)))
                labels = torch.from_numpy(runner.labels(episode.query, episode.classes))
                present += [bool((labels == way).any()) for way in range(1, len(episode.classes) + 1)]
                kinds += [number * len(_KINDS) + kind] * len(episode.classes)
                step((number * len(_KINDS) + kind) * episodes + place + 1, total)
    if len(present) < _MIN_SAMPLES or all(present) or not any(present):
        raise TrainingError(
            f"{len(present)} classes in queries, {sum(present)} of them present: too few to fit presence to; give "
            "data sets with more images and classes (--masks)"
        )
    return torch.cat(cues), torch.tensor(present, dtype=torch.float32), torch.tensor(kinds)


def fit_presence(cues: Tensor, present: Tensor, kinds: Tensor) -> Tensor:
    """(cues + 1,) weights and constant of the log odds of presence.

    From cues (n, cues), presence (n,) of 0 or 1, and the kinds (n,) of their episodes. Within each kind both outcomes
    count alike, however often each was drawn: even odds are where a class is as likely there as not.
    """
    mean, spread = cues.mean(0), cues.std(0).clamp(min=1e-6)
    inputs = F.pad((cues - mean) / spread, (0, 1), value=1.0).double()
    counts = torch.ones(len(present), dtype=torch.float64)
    for kind in kinds.unique():
        of_kind = kinds == kind
        share = present[of_kind].double().mean()
        if 0 < share < 1:
            counts[of_kind] = torch.where(present[of_kind] > 0, 0.5 / share, 0.5 / (1 - share))
    model = torch.zeros(inputs.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([model], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.binary_cross_entropy_with_logits(inputs @ model, present.double(), weight=counts)
        total = fit + _DECAY * model[:-1].square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    found = model.detach()
    weights = found[:-1] / spread.double()
    return torch.cat([weights, (found[-1] - weights @ mean.double())[None]]).float()
