"""Presets of episodic training. Importing this module loads no torch."""

from dataclasses import dataclass, fields, replace
from typing import Any

from kshot.errors import SettingError, UnknownNameError
from kshot.training.schedule import Schedule

AUGMENTATIONS = ("flip", "scale", "color-jitter", "copy-paste")
PROTOCOLS = ("hsnet", "fs-cs")


@dataclass(frozen=True)
class Recipe:
    """How long, how fast and by which loss a method learns from episodes. The defaults are the recipe `seed`."""

    epochs: int = 50
    """Epochs; each shows every (image, class) pair of the base classes as a query once."""
    batch_size: int = 4
    """Episodes of one forward pass."""
    grad_accumulation_steps: int = 1
    """Forward passes of one step."""
    lr: float = 1e-4
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    decay: str = "step"
    """How the learning rate falls: "cosine" to zero, or "step" by a factor of 10 after each `step_size` epochs."""
    step_size: int = 10
    """Epochs after which the learning rate falls."""
    warmup: float = 0.0
    """Fraction of the steps in which the learning rate rises."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 clips nothing."""
    balance: float = 1.0
    """Power of the class weights (see `presence_weights`); 0 is the plain cross-entropy."""
    align: float = 1.0
    """Weight of PANet's alignment loss (`prototype`)."""
    drop: float = 0.7
    """Probability, 0..1, that an example teaches the first prediction alone and no refinement (`dense-comparison`)."""
    patience: int = 10
    """Epochs without a better validation after which training stops; 0 never stops."""
    protocol: str = "hsnet"
    """How training episodes are drawn: `hsnet`, whose queries show their class, or `fs-cs`, where half lack it."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.balance < 0 or self.align < 0 or not 0 <= self.drop <= 1:
            raise SettingError("expected epochs from 1 on, balance and align from 0 on, and drop in 0..1")
        if self.protocol not in PROTOCOLS:
            raise UnknownNameError("training protocols", self.protocol, PROTOCOLS)

    def schedule(self, epoch_steps: int, *, dtype: str, seed: int) -> Schedule:
        """The trainer's schedule when an epoch takes `epoch_steps`; it validates and saves after each epoch."""
        shared = {field.name for field in fields(Recipe)} & {field.name for field in fields(Schedule)}
        settings: dict[str, Any] = {name: getattr(self, name) for name in shared - {"step_size"}}
        return Schedule(
            **settings,
            steps=self.epochs * epoch_steps,
            step_size=self.step_size * epoch_steps,
            dtype=dtype,
            validate_every=epoch_steps,
            save_every=epoch_steps,
            monitor="+miou",
            seed=seed,
        )


RECIPES = {
    # As the starting paper trains: AdamW, 1e-4, times 0.1 every 10 epochs, 50 epochs, batches of 4, early stopping.
    "seed": Recipe(),
    "quick": Recipe(epochs=8, lr=5e-4, decay="cosine", warmup=0.05, clip=1.0, balance=0.5, patience=0),
}


def recipe(name: str, **settings: Any) -> Recipe:
    """A preset with the given settings, those that are None left as they are.

    Raises `UnknownNameError` and `SettingError`.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipes", name, RECIPES)
    return replace(RECIPES[name], **{key: value for key, value in settings.items() if value is not None})
