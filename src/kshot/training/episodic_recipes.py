"""Presets of `kshot train episodic`: how long, how fast and by what an episode is learned."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from kshot.errors import SettingError, UnknownNameError
from kshot.training.trainer import Schedule


@dataclass(frozen=True)
class Recipe:
    """epochs: each shows every (image, class) pair of the base as a query once. batch_size: episodes of a step.

    lr, weight_decay: of AdamW. decay: "step" (times 0.1 every `every` epochs) or "cosine". clip: norm of the gradient,
    0 for none. balance: power of the weights by presence (`presence_weights`). align: weight of PANet's alignment loss
    (`prototype`). drop: chance that the mask believed before is taken away (`dense-comparison`). patience: epochs
    without a better validation after which training stops. protocol: of the training episodes, `hsnet` or `fs-cs`.
    """

    epochs: int = 50
    batch_size: int = 4
    accumulate: int = 1
    lr: float = 1e-4
    weight_decay: float = 0.01
    decay: str = "step"
    every: int = 10
    warmup: float = 0.0
    clip: float = 0.0
    balance: float = 1.0
    align: float = 1.0
    drop: float = 0.7
    patience: int = 10
    protocol: str = "hsnet"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.balance < 0 or self.align < 0 or not 0 <= self.drop <= 1:
            raise SettingError("expected epochs from 1 on, balance and align from 0 on, and drop in 0..1")
        if self.protocol not in {"hsnet", "fs-cs"}:
            raise UnknownNameError("training protocols", self.protocol, ["hsnet", "fs-cs"])

    def schedule(self, epoch_steps: int, *, dtype: str, seed: int) -> Schedule:
        """The loop's schedule when an epoch takes this many steps; it validates and saves after each epoch."""
        return Schedule(
            steps=self.epochs * epoch_steps,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            lr=self.lr,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            decay=self.decay,
            every=self.every * epoch_steps,
            clip=self.clip,
            dtype=dtype,
            validate_every=epoch_steps,
            save_every=epoch_steps,
            monitor="+miou",
            patience=self.patience,
            seed=seed,
        )


RECIPES = {
    # As the starting paper trains: AdamW, 1e-4, times 0.1 every 10 epochs, 50 epochs, batches of 4, early stopping.
    "seed": Recipe(),
    "quick": Recipe(epochs=8, lr=5e-4, decay="cosine", warmup=0.05, clip=1.0, balance=0.5, patience=0),
}


def recipe(name: str, **given: Any) -> Recipe:
    """A preset with those settings replaced that are not None. Raises `UnknownNameError` and `SettingError`."""
    if name not in RECIPES:
        raise UnknownNameError("recipes", name, RECIPES)
    known = set(asdict(RECIPES[name]))
    return replace(RECIPES[name], **{key: value for key, value in given.items() if value is not None and key in known})
