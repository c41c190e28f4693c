"""Bootstrap intervals over episodes: how far would a score move with other episodes?

Percentile bootstrap (Efron and Tibshirani 1993, section 13.3): episodes are drawn with replacement, sums are taken
again, and the score is computed from them; a class that a draw lacks is left out of that draw.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kshot.errors import SettingError
from kshot.metrics.scores import Floats, Score, mean_of_ratios

_BLOCK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; the bounds are nan when there is nothing to resample."""

    value: float
    low: float
    high: float
    level: float
    samples: int


def bootstrap(
    score: Score, *, level: float = 0.95, samples: int = 2000, seed: int | np.random.Generator = 0
) -> Interval:
    """The interval of one score over its episodes.

    level: in (0, 1). samples: draws. seed: a number, or a generator. Raises `SettingError`.
    """
    _check(level, samples)
    draws = _resample([score], samples, np.random.default_rng(seed))[0]
    return _interval(score.value, draws, level, samples)


def bootstrap_mean(
    scores: Sequence[Score], *, level: float = 0.95, samples: int = 2000, seed: int | np.random.Generator = 0
) -> Interval:
    """The interval of the mean of several runs' scores, such as four folds; episodes are drawn within each run.

    One score gives the same as `bootstrap`. Raises `SettingError`.
    """
    _check(level, samples)
    if not scores:
        raise SettingError("a mean of scores needs at least one")
    rng = np.random.default_rng(seed)
    draws = np.mean([_resample([score], samples, rng)[0] for score in scores], axis=0)
    return _interval(float(np.mean([score.value for score in scores])), draws, level, samples)


def paired_bootstrap(
    first: Score, second: Score, *, level: float = 0.95, samples: int = 2000, seed: int | np.random.Generator = 0
) -> Interval:
    """The interval of `first - second`, two runs on the same episodes, drawn together.

    An interval that excludes 0 says that the runs differ. Raises `SettingError` when the episodes differ.
    """
    _check(level, samples)
    if not np.array_equal(first.index, second.index):
        shared = len(np.intersect1d(first.index, second.index))
        raise SettingError(
            f"paired runs need the same episodes; they share {shared} of {len(first.index)} and {len(second.index)}"
        )
    if first.labels != second.labels:
        raise SettingError(f"paired runs need the same classes, got {first.labels} and {second.labels}")
    one, two = _resample([first, second], samples, np.random.default_rng(seed))
    return _interval(first.value - second.value, one - two, level, samples)


def _resample(scores: list[Score], samples: int, rng: np.random.Generator) -> list[Floats]:
    """For each score its (samples,) values under the same draws."""
    parts = [(s.numerator.astype(np.float64), s.denominator.astype(np.float64)) for s in scores]
    blocks = [
        [mean_of_ratios(weights @ numerator, weights @ denominator) for numerator, denominator in parts]
        for weights in _weights(len(scores[0].index), samples, rng)
    ]
    return [np.concatenate(values) for values in zip(*blocks, strict=True)]


def _weights(episodes: int, samples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Blocks of (b, E): how often each draw holds each episode. A block is bounded, so memory is too."""
    size = max(1, min(samples, _BLOCK // max(episodes, 1)))
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        drawn = rng.integers(episodes, size=(rows, episodes)) if episodes else np.zeros((rows, 0), np.int64)
        flat = (drawn + np.arange(rows)[:, None] * episodes).ravel()
        yield np.bincount(flat, minlength=rows * episodes).reshape(rows, episodes).astype(np.float64)


def _interval(value: float, draws: Floats, level: float, samples: int) -> Interval:
    known: NDArray[np.float64] = draws[np.isfinite(draws)]
    if not len(known):
        return Interval(value, float("nan"), float("nan"), level, samples)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, samples)


def _check(level: float, samples: int) -> None:
    if not 0 < level < 1 or samples < 1:
        raise SettingError(f"expected a level in (0, 1) and at least one sample, got {level} and {samples}")
