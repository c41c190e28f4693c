"""The loop behind every `kshot train`: plain torch, one process or several, and exactly repeatable.

A job's batches are pure in (step, part), and chance is seeded anew at each step; so a run that was killed and resumed
goes on with the same losses, to the bit on a CPU, and nothing but weights and moments has to be kept.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kshot.errors import SettingError, TrainingError
from kshot.training import checkpoint
from kshot.training.ahead import Ahead
from kshot.training.log import Log
from kshot.training.muon import Muon
from kshot.training.ranks import Ranks


class Job(Protocol):
    """What is trained, on what, and how it is told good from bad."""

    @property
    def model(self) -> nn.Module:
        """What learns."""
        ...

    def batch(self, step: int, part: int, size: int) -> Any:
        """Batch number `part` of a step, `size` examples: pure in its arguments."""
        ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name; "loss" is what is minimised."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures of the model as it is, in eval mode."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How a job is trained.

    steps: of the optimizer. batch_size: examples of one forward pass; accumulate: passes a step, in each process.
    lr: highest rate of AdamW. weight_decay: its own. warmup: share of the steps in which the rate rises. decay: how it
    falls: "cosine" to zero, or "step": times `factor` every `every` steps. clip: largest norm of the gradient, 0 for
    none. orthogonal: rate of Muon's steps for matrices and kernels, times lr; 0 for AdamW alone. average: decay of the
    running mean of the weights that is kept as the result, 0 for none. dtype: float32 or bfloat16 (autocast).
    validate_every, save_every: steps. monitor: figure of `validate` by which the best state is kept; "+" before it says
    that more is better. patience: validations without a better one after which training stops, 0 for never. seed: of
    everything.
    """

    steps: int = 1000
    batch_size: int = 32
    accumulate: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    decay: str = "cosine"
    every: int = 0
    factor: float = 0.1
    clip: float = 1.0
    average: float = 0.0
    orthogonal: float = 0.0
    dtype: str = "float32"
    validate_every: int = 200
    save_every: int = 200
    monitor: str = "loss"
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} {getattr(self, name)}: expected 1 or more")
        if self.lr <= 0 or self.decay not in {"cosine", "step"} or self.dtype not in {"float32", "bfloat16"}:
            raise SettingError("expected lr above 0, decay cosine or step, and dtype float32 or bfloat16")
        if self.decay == "step" and self.every < 1:
            raise SettingError("decay step needs `every`: steps after which the rate falls")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = max(1, round(self.warmup * self.steps)) if self.warmup else 0
        if step < rising:
            return self.lr * (step + 1) / rising
        if self.decay == "step":
            return self.lr * self.factor ** (step // self.every)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, self.steps - rising)))

    @property
    def wants_more(self) -> bool:
        """Whether a larger figure is the better one."""
        return self.monitor.startswith("+")


class Outcome(NamedTuple):
    """steps: done. best: (step, figure) of the best validation. stopped: why it ended before its steps, or empty."""

    steps: int
    best: tuple[int, float]
    stopped: str
    path: Path


@dataclass
class _State:
    """What changes, beside weights and moments."""

    step: int = 0
    best_step: int = -1
    best: float = math.nan
    waited: int = 0


Progress = Callable[[int, int, dict[str, float]], None]


def train(
    job: Job,
    schedule: Schedule,
    out: Path,
    settings: dict[str, Any],
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train, with checkpoints and a log in `out`; the best state stands in best.safetensors.

    settings: everything else that decides the result; a run is only resumed with the same. progress: called after
    each step with (step, steps, figures). Under torchrun every process does a part of each step's batch.
    Raises `TrainingError` (loss not finite, memory, another architecture or settings) and `OutputError` (disk).
    """
    with Ranks.joined() as ranks:
        return _Run(job, schedule, out, settings, ranks, progress).go(resume)


class _Run:
    def __init__(
        self, job: Job, schedule: Schedule, out: Path, settings: dict[str, Any], ranks: Ranks, progress: Progress | None
    ):
        self.job, self.schedule, self.out, self.ranks, self.progress = job, schedule, out, ranks, progress
        self.settings = {"schedule": asdict(schedule), **settings}
        self.weights = [weight for weight in job.model.parameters() if weight.requires_grad]
        self.optimizer = _optimizer(job.model, schedule)
        self.average = {n: t.detach().clone() for n, t in job.model.state_dict().items()} if schedule.average else {}
        self.state = _State()
        self.log = Log(out, ranks.first)
        self.began = time.monotonic()

    def go(self, resume: bool) -> Outcome:
        self._begin(resume)
        self.ranks.share(self.weights)
        stopped = ""
        with Ahead(self._batches(self.state.step)) as batches:
            for batch in batches:
                figures = self._step(batch)
                self.log.step(self.state.step, figures)
                stopped = self._look(figures)
                if self.progress and self.ranks.first:
                    self.progress(self.state.step, self.schedule.steps, figures)
                if stopped:
                    break
        self.log.close()
        return Outcome(self.state.step, (self.state.best_step, self.state.best), stopped, self.out / checkpoint.BEST)

    def _begin(self, resume: bool) -> None:
        last = self.out / checkpoint.LAST
        if resume:
            facts = checkpoint.restore(last, self.job.model, self.average, self.optimizer)
            _check_same(self.settings, facts["settings"], last)
            self.state = _State(**facts["state"])
        elif last.exists():
            raise TrainingError(f"{last}: a run lies here already; go on with --resume, or choose another --out")
        self.log.begin(self.settings, self.state.step)

    def _batches(self, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of this process: a tuple a step, as many as are accumulated."""
        share, parts = self.schedule.accumulate, self.schedule.accumulate * self.ranks.count
        mine = range(self.ranks.number * share, (self.ranks.number + 1) * share)
        for step in range(start, self.schedule.steps):
            yield tuple(self.job.batch(step, step * parts + part, self.schedule.batch_size) for part in mine)

    def _step(self, batches: tuple[Any, ...]) -> dict[str, float]:
        step, schedule = self.state.step, self.schedule
        torch.manual_seed(schedule.seed * 1_000_003 + step * 1009 + self.ranks.number)
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.rate(step) * group["share"]
        self.job.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for batch in batches:
            with self._told_of_memory():
                losses = self._losses(batch)
                (losses["loss"] / len(batches)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        self.ranks.average_gradients(self.weights)
        figures = self.ranks.average(sums)
        if not math.isfinite(figures["loss"]):
            raise TrainingError(self._not_finite(figures))
        if schedule.clip:
            nn.utils.clip_grad_norm_(self.weights, schedule.clip)
        self.optimizer.step()
        self._average(step)
        self.state.step += 1
        return figures | {"lr": schedule.rate(step)}

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        kind = next(self.job.model.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.schedule.dtype == "bfloat16"):
            return self.job.losses(batch)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the running means; a young mean forgets faster, so that it does not hang on the random start."""
        keep = min(self.schedule.average, (1 + step) / (10 + step))
        for name, tensor in self.job.model.state_dict().items():
            if name in self.average:
                self.average[name].lerp_(tensor, 1 - keep)

    def _look(self, figures: dict[str, float]) -> str:
        """Validate and save where it is due; why training ends now, or an empty text."""
        state, schedule = self.state, self.schedule
        end, stopped = state.step == schedule.steps, ""
        if state.step % schedule.validate_every == 0 or end:
            found = self._validated()
            figures |= {f"val_{name}": value for name, value in found.items()}
            self.log.validation(state.step, found)
            stopped = self._judge(found)
        if state.step % schedule.save_every == 0 or end or stopped:
            self._save(checkpoint.LAST)
        return stopped

    def _judge(self, found: dict[str, float]) -> str:
        figure, state = found[self.schedule.monitor.lstrip("+")], self.state
        better = math.isnan(state.best) or (figure > state.best if self.schedule.wants_more else figure < state.best)
        if better:
            state.best, state.best_step, state.waited = figure, state.step, 0
            self._save(checkpoint.BEST)
            return ""
        state.waited += 1
        if self.schedule.patience and state.waited >= self.schedule.patience:
            return f"no better {self.schedule.monitor.lstrip('+')} in {state.waited} validations"
        return ""

    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        """Figures of the averaged weights where there are any: what would be used is what is judged."""
        model = self.job.model.eval()
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()} if self.average else {}
        if self.average:
            model.load_state_dict(self.average)
        try:
            return self.ranks.from_first(self.job.validate)
        finally:
            if kept:
                model.load_state_dict(kept)

    def _save(self, name: str) -> None:
        if self.ranks.first:
            facts = {"state": vars(self.state), "settings": self.settings}
            checkpoint.save(self.out / name, facts, self.job.model, self.average, self.optimizer)

    @contextmanager
    def _told_of_memory(self) -> Iterator[None]:
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
                raise
            size, passes = self.schedule.batch_size, self.schedule.accumulate
            raise TrainingError(
                f"out of memory in step {self.state.step} with batches of {size}; use --batch-size "
                f"{max(1, size // 2)} --accumulate {2 * passes}, which trains the same, and --resume if you wish"
            ) from error

    def _not_finite(self, figures: dict[str, float]) -> str:
        parts = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        last = self.out / checkpoint.LAST
        kept = f"the last good state is {last}" if last.exists() else "no state was saved yet"
        return f"step {self.state.step}: the loss is not finite ({parts}); {kept}. Try a smaller --lr or float32"


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    groups = _groups(model, schedule.weight_decay)
    if not schedule.orthogonal:
        return torch.optim.AdamW(groups, lr=schedule.lr)
    # What reads colours and what gives the answer learns better by AdamW, as Muon's authors found.
    ends = {id(weight) for end in getattr(model, "ends", ()) for weight in model.get_submodule(end).parameters()}
    wide = groups[0]
    inner = [weight for weight in wide["params"] if id(weight) not in ends]
    wide["params"] = [weight for weight in wide["params"] if id(weight) in ends]
    matrices = wide | {"params": inner, "orthogonal": True, "share": schedule.orthogonal}
    return Muon([group for group in (matrices, *groups) if group["params"]], schedule.lr)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases and norms do not (as in Loshchilov and Hutter's own use of AdamW)."""
    wide = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim > 1]
    flat = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim <= 1]
    groups = [{"params": wide, "weight_decay": weight_decay}, {"params": flat, "weight_decay": 0.0}]
    return [group | {"share": 1.0} for group in groups if group["params"]]


def _check_same(settings: dict[str, Any], before: dict[str, Any], path: Path) -> None:
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        told = "; ".join(f"{name}: {before.get(name)} then, {settings[name]} now" for name in changed)
        raise TrainingError(f"{path}: was trained with other settings ({told}); resume with the same, or begin anew")
