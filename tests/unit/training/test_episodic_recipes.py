"""Presets of episodic training."""

import pytest

from kshot.errors import SettingError
from kshot.training.episodic_recipes import recipe


def test_presets_and_single_settings() -> None:
    seed = recipe("seed")
    assert (seed.lr, seed.epochs, seed.batch_size, seed.step_size, seed.decay) == (1e-4, 50, 4, 10, "step")
    schedule = seed.schedule(7, dtype="float32", seed=0)
    assert (
        schedule.steps == 350 and schedule.rate(69) == pytest.approx(1e-4) and schedule.rate(70) == pytest.approx(1e-5)
    )
    assert recipe("quick", lr=1e-3, epochs=None).lr == 1e-3
    with pytest.raises(SettingError, match="epochs from 1 on"):
        recipe("seed", epochs=0)
