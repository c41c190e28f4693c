"""Bootstrap intervals: the loop they stand for, their coverage, and pairs."""

import numpy as np
import pytest

from kshot.errors import SettingError
from kshot.metrics import EpisodeCounts, bootstrap, fss_miou, intervals, paired_bootstrap
from tests.support.foreground_counts import foreground_counts


def test_the_bootstrap_is_the_loop_it_stands_for(monkeypatch):
    run = foreground_counts(np.arange(7), np.arange(7) + 5, classes=[1, 1, 1, 1, 2, 2, 3])
    score = fss_miou(run)
    drawn = np.random.default_rng(3).integers(7, size=(50, 7))
    values = []
    for episodes in drawn:
        parts = score.numerator[episodes].sum(0), score.denominator[episodes].sum(0)
        values.append(np.mean([i / u for i, u in zip(*parts, strict=True) if u]))
    low, high = np.quantile(values, [0.05, 0.95])
    whole = bootstrap(score, level=0.9, samples=50, seed=3)
    assert (whole.low, whole.high) == pytest.approx((low, high)) and whole.value == score.value
    monkeypatch.setattr(intervals, "_BLOCK", 30)  # blocks bound the memory and change nothing
    assert bootstrap(score, level=0.9, samples=50, seed=3) == whole


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        found = bootstrap(fss_miou(foreground_counts(rng.binomial(100, 0.6, 60), [100] * 60)), samples=200, seed=rng)
        hits += found.low <= 0.6 <= found.high
    assert 86 <= hits <= 100


def test_pairing_sees_a_small_difference_that_lies_within_both_intervals():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 80, 200)
    one, two = fss_miou(foreground_counts(base + 3, [100] * 200)), fss_miou(foreground_counts(base, [100] * 200))
    apart = paired_bootstrap(one, two, samples=300)
    assert apart.value == pytest.approx(0.03) and apart.low == pytest.approx(0.03) == apart.high
    assert bootstrap(one).low < two.value


def test_pairing_needs_the_same_episodes_and_classes():
    one = fss_miou(foreground_counts([1, 2], [3, 4]))
    with pytest.raises(SettingError, match="they share 2 of 2 and 3"):
        paired_bootstrap(one, fss_miou(foreground_counts([1, 2, 3], [3, 4, 5])))
    with pytest.raises(SettingError, match="the same classes"):
        paired_bootstrap(one, fss_miou(foreground_counts([1, 2], [3, 4], classes=[1, 2])))


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"level": 0}, {"samples": 0}])
def test_interval_settings(wrong):
    with pytest.raises(SettingError, match="a level in"):
        bootstrap(fss_miou(foreground_counts([1], [2])), **wrong)


def test_nothing_to_resample_is_nan():
    empty = fss_miou(EpisodeCounts.from_table(np.zeros((0, 8)), 1), classes=(1,))
    found = bootstrap(empty, samples=5)
    assert np.isnan([empty.value, found.value, found.low, found.high]).all()
