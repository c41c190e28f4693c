"""The learning rate of each step, and which schedules are refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshot.errors import SettingError
from kshot.training.schedule import Schedule


def test_rates_counted_by_hand() -> None:
    """Two steps of rise to 0.1, then half a cosine over eight: cos(pi / 4) after two, zero after four."""
    schedule = Schedule(steps=10, lr=0.1, warmup=0.2)
    found = [schedule.rate(step) for step in range(10)]
    half = math.sqrt(0.5)
    assert found[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert [found[4], found[6], found[8]] == pytest.approx([0.05 * (1 + half), 0.05, 0.05 * (1 - half)])


def test_rates_of_steps_counted_by_hand() -> None:
    schedule = Schedule(steps=9, lr=1.0, warmup=0.0, decay="step", step_size=3, gamma=0.5)
    assert [schedule.rate(step) for step in range(9)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.9))
def test_a_rate_rises_to_its_highest_and_falls(steps: int, warmup: float) -> None:
    schedule = Schedule(steps=steps, lr=0.3, warmup=warmup)
    found = [schedule.rate(step) for step in range(steps)]
    top = found.index(max(found))
    assert max(found) == pytest.approx(0.3) and min(found) > 0
    assert found[: top + 1] == sorted(found[: top + 1]) and found[top:] == sorted(found[top:], reverse=True)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"steps": 0}, "steps 0"),
        ({"lr": 0.0}, "lr above 0"),
        ({"decay": "line"}, "decay cosine or step"),
        ({"decay": "step"}, "`step_size`"),
        ({"ema_decay": 1.0}, "ema_decay 1.0"),
        ({"warmup": -0.1}, "warmup -0.1"),
        ({"patience": -1}, "patience -1"),
    ],
)
def test_a_wrong_schedule_is_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(SettingError, match=told):
        Schedule(**wrong)
