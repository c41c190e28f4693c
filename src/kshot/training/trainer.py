"""The loop behind every `kshot train`: plain torch, one process or several, and exactly repeatable.

A job's batches are pure in (step, part), and chance is seeded anew at each step; so a run that was killed and resumed
goes on with the same losses, to the bit on a CPU, and nothing but weights and moments has to be kept.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kshot.errors import KshotError, SettingError, TrainingError
from kshot.training import checkpoint
from kshot.training.distributed import Ranks
from kshot.training.log import Log
from kshot.training.optimizer import make_optimizer
from kshot.training.prefetch import Ahead

# What torch says on a CPU and on a GPU; only the latter has an error of its own.
_NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")


class Job(Protocol):
    """What is trained, on what, and how it is told good from bad.

    A job may also have `shares`, a mapping of the beginnings of weights' names to what these get of the learning rate.
    """

    @property
    def model(self) -> nn.Module:
        """What is trained; the same object each time."""
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
        for name in ("warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"{name} {getattr(self, name)}: expected 0 or more, and less than 1")
        for name in ("weight_decay", "clip", "patience"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} {getattr(self, name)}: expected 0 or more")
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
    """steps: done. best: (step, figure) of the best validation. stopped: why it ended before its steps, or empty.

    path: of the best state. first: whether this process is the one that writes what comes of it.
    """

    steps: int
    best: tuple[int, float]
    stopped: str
    path: Path
    first: bool = True


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
    with Ranks.joined(next(job.model.parameters()).device) as ranks:
        return _Run(job, schedule, out, settings, ranks, progress).go(resume)


class _Run:
    def __init__(
        self, job: Job, schedule: Schedule, out: Path, settings: dict[str, Any], ranks: Ranks, progress: Progress | None
    ):
        self.job, self.schedule, self.out, self.ranks, self.progress = job, schedule, out, ranks, progress
        # As JSON would give them back: tuples are lists there.
        self.settings = json.loads(json.dumps({"schedule": asdict(schedule), "processes": ranks.count, **settings}))
        self.weights = [weight for weight in job.model.parameters() if weight.requires_grad]
        self.optimizer = make_optimizer(
            job.model, schedule.lr, schedule.weight_decay, schedule.orthogonal, getattr(job, "shares", {})
        )
        self.average = {n: t.detach().clone() for n, t in job.model.state_dict().items()} if schedule.average else {}
        self.state = _State()
        self.log = Log(out, ranks.first)

    def go(self, resume: bool) -> Outcome:
        self._begin(resume)
        self.ranks.share(self.weights)
        stopped, state = self._out_of_patience(), self.state
        try:
            if not stopped:  # a run that had stopped by itself and is resumed stays where it is
                stopped = self._learn()
            self.log.end(state.step, stopped or "all steps are done")
        except (KshotError, KeyboardInterrupt) as error:
            self.log.end(state.step, str(error) or "interrupted")
            raise
        finally:
            self.log.close()
        best = (state.best_step, state.best)
        return Outcome(state.step, best, stopped, self.out / checkpoint.BEST, self.ranks.first)

    def _learn(self) -> str:
        """All steps that are left; why it ended before them, or an empty text."""
        with Ahead(self._batches(self.state.step)) as batches:
            for batch in batches:
                figures = self._step(batch)
                self.log.step(self.state.step, figures)
                stopped = self._look(figures)
                if self.progress and self.ranks.first:
                    self.progress(self.state.step, self.schedule.steps, figures)
                if stopped:
                    return stopped
        return ""

    def _begin(self, resume: bool) -> None:
        last = self.out / checkpoint.LAST
        if resume:
            facts, tensors = checkpoint.read(last)
            _check_same(self.settings, facts["settings"], last)
            checkpoint.restore(last, tensors, self.job.model, self.average, self.optimizer)
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
        with self._told_of_memory():
            figures = self._gradients(batches)
            # The loss may be finite where its gradient is not: one such step would spoil all that is saved after it.
            norm = float(nn.utils.clip_grad_norm_(self.weights, schedule.clip or math.inf))
            if not (math.isfinite(figures["loss"]) and math.isfinite(norm)):
                raise TrainingError(self._not_finite(figures | {"norm of the gradient": norm}))
            self.optimizer.step()
        self._average(step)
        self.state.step += 1
        return figures | {"lr": schedule.rate(step)}

    def _gradients(self, batches: tuple[Any, ...]) -> dict[str, float]:
        """Mean losses by name; the weights have the mean gradient then, over all batches of all processes."""
        sums: dict[str, float] = {}
        for batch in batches:
            losses = self._losses(batch)
            (losses["loss"] / len(batches)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        self.ranks.average_gradients(self.weights)
        return self.ranks.average(sums)

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        kind = next(self.job.model.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.schedule.dtype == "bfloat16"):
            return self.job.losses(batch)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the running means; a young mean forgets faster, so that it does not hang on the random start."""
        keep = min(self.schedule.average, (1 + step) / (10 + step))
        for name, tensor in self.job.model.state_dict().items():
            if name not in self.average:
                continue
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - keep)
            else:  # a count has no mean
                self.average[name].copy_(tensor)

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
        name, state = self.schedule.monitor.lstrip("+"), self.state
        if name not in found:
            raise SettingError(f"monitor {name}: a validation gives {', '.join(found)}")
        figure = found[name]
        better = math.isnan(state.best) or (figure > state.best if self.schedule.wants_more else figure < state.best)
        if better:
            state.best, state.best_step, state.waited = figure, state.step, 0
            self._save(checkpoint.BEST)
            return ""
        state.waited += 1
        return self._out_of_patience()

    def _out_of_patience(self) -> str:
        """Why training ends before its steps, or an empty text."""
        name, waited = self.schedule.monitor.lstrip("+"), self.state.waited
        patient = not self.schedule.patience or waited < self.schedule.patience
        return "" if patient else f"no better {name} in {waited} validations"

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
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
                raise TrainingError(self._out_of_memory()) from error
            raise

    def _out_of_memory(self) -> str:
        size, passes = self.schedule.batch_size, self.schedule.accumulate
        told = f"out of memory in step {self.state.step} with batches of {size}"
        if size == 1:
            return f"{told}; use smaller pictures, --dtype bfloat16, or a machine with more memory"
        half = max(part for part in range(1, size // 2 + 1) if size % part == 0)
        return (
            f"{told}; use --batch-size {half} --accumulate {passes * size // half}, which learns from as many examples "
            "a step; with --resume the run goes on from its last checkpoint"
        )

    def _not_finite(self, figures: dict[str, float]) -> str:
        parts = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        last = self.out / checkpoint.LAST
        kept = f"the last good state is {last}" if last.exists() else "no state was saved yet"
        return f"step {self.state.step}: the loss is not finite ({parts}); {kept}. Try a smaller --lr or float32"


def _check_same(settings: dict[str, Any], before: dict[str, Any], path: Path) -> None:
    """Raise `TrainingError` that names what changed; how a step's examples are cut into batches may change."""
    here, there = _deciding(settings), _deciding(before)
    changed = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if changed:
        told = "; ".join(f"{name}: {there.get(name)} then, {here.get(name)} now" for name in changed)
        raise TrainingError(f"{path}: was trained with other settings ({told}); resume with the same, or begin anew")


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, those of the schedule among the others."""
    flat = {name: value for name, value in settings.items() if name not in {"schedule", "processes"}}
    schedule = dict(settings["schedule"])
    parts = [schedule.pop("batch_size"), schedule.pop("accumulate"), settings.get("processes", 1)]
    return flat | schedule | {"examples a step": math.prod(parts)}
