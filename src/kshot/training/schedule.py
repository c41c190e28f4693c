"""How long and how fast a model trains. Importing this module loads no torch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kshot.errors import SettingError

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called after each unit of work with (stage, done, total, figures)."""


@dataclass(frozen=True)
class Schedule:
    """How a model is trained. Raises `SettingError` for a value outside its range."""

    steps: int = 1000
    """Steps of the optimizer."""
    batch_size: int = 32
    """Examples of one forward pass."""
    grad_accumulation_steps: int = 1
    """Forward passes of one step, in each process; their gradients are averaged."""
    lr: float = 1e-3
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices and kernels; biases and norms have none."""
    warmup: float = 0.05
    """Fraction of the steps in which the learning rate rises linearly, 0 to below 1."""
    decay: str = "cosine"
    """How the learning rate falls: "cosine" to zero, or "step" by `gamma` after each `step_size` steps."""
    step_size: int = 0
    """Steps after which the learning rate falls; only for decay "step"."""
    gamma: float = 0.1
    """Factor of that fall."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 clips nothing."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights, which becomes the result; 0 keeps none."""
    muon_lr_ratio: float = 0.0
    """Learning rate of Muon, which moves inner matrices and kernels, divided by `lr`; 0 leaves all to AdamW."""
    dtype: str = "float32"
    """float32, or bfloat16 for automatic mixed precision."""
    validate_every: int = 200
    """Steps between validations."""
    save_every: int = 200
    """Steps between checkpoints."""
    monitor: str = "loss"
    """Figure of the validation by which the best state is chosen; a leading "+" says that more is better."""
    patience: int = 0
    """Validations without a better one after which training stops; 0 never stops."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "grad_accumulation_steps", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} {getattr(self, name)}: expected 1 or more")
        for name in ("warmup", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"{name} {getattr(self, name)}: expected 0 or more, and less than 1")
        for name in ("weight_decay", "clip", "muon_lr_ratio", "patience"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} {getattr(self, name)}: expected 0 or more")
        if self.lr <= 0 or self.decay not in {"cosine", "step"} or self.dtype not in {"float32", "bfloat16"}:
            raise SettingError("expected lr above 0, decay cosine or step, and dtype float32 or bfloat16")
        if self.decay == "step" and self.step_size < 1:
            raise SettingError("decay step needs `step_size`: steps after which the learning rate falls")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = max(1, round(self.warmup * self.steps)) if self.warmup else 0
        if step < rising:
            return self.lr * (step + 1) / rising
        if self.decay == "step":
            return self.lr * self.gamma ** (step // self.step_size)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, self.steps - rising)))

    @property
    def more_is_better(self) -> bool:
        """Whether the best state is the one with the largest figure."""
        return self.monitor.startswith("+")

    @property
    def figure(self) -> str:
        """Name of the figure by which the best state is chosen."""
        return self.monitor.lstrip("+")
