"""Bootstrap intervals over episodes: how far would a score move with other episodes?

Percentile bootstrap (Efron and Tibshirani 1993, section 13.3): episodes are drawn with replacement, sums are taken
again, and the score is computed from them; a class that a draw lacks is left out of that draw.

`scipy.stats.bootstrap` would gather every episode of every draw and knows no nan; here a draw is a row of counts, so
2,000 draws of 1,000 episodes are one matrix product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kshot.errors import SettingError
from kshot.metrics.scores import Floats, Score, mean_of_ratios

_BLOCK = 2_000_000  # numbers of a block of draws, which bounds the memory


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval."""

    value: float
    low: float
    high: float
    """Bounds of the interval; nan when there is nothing to resample."""
    level: float
    """Probability that the interval is made for, such as 0.95."""
    samples: int
    """Draws that it rests on."""


def bootstrap(
    *scores: Score, level: float = 0.95, samples: int = 2000, seed: int | np.random.Generator = 0
) -> Interval:
    """The interval of a score, or of the mean of several runs' scores, such as four folds.

    Episodes are drawn within each run. level: in (0, 1). samples: draws. seed: a number, or a generator.
    Raises `SettingError`.
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
    """Blocks of (b, E): how often each draw holds each episode."""
    size = max(1, min(samples, _BLOCK // max(episodes, 1)))
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        drawn = rng.integers(episodes, size=(rows, episodes)) if episodes else np.zeros((rows, 0), np.int64)
        flat = (drawn + np.arange(rows)[:, None] * episodes).ravel()
        yield np.bincount(flat, minlength=rows * episodes).reshape(rows, episodes).astype(np.float64)


def _interval(value: float, draws: Floats, level: float, samples: int) -> Interval:
    finite: Floats = draws[np.isfinite(draws)]
    if not len(finite):
        return Interval(value, float("nan"), float("nan"), level, samples)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, samples)


def _check(level: float, samples: int) -> None:
    if not 0 < level < 1 or samples < 1:
        raise SettingError(f"expected a level in (0, 1) and at least one sample, got {level} and {samples}")
