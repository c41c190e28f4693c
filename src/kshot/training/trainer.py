"""The training loop behind every `kshot train`: plain torch, one process or several, exactly repeatable.

Batches depend on nothing but (step, number), and random generators are seeded anew at each step. A run that was killed
and resumed therefore continues with the same losses, bit for bit on a CPU, from the weights and the optimizer's state.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kshot.errors import KshotError, SettingError, TrainingError
from kshot.training import checkpoint, distributed
from kshot.training.distributed import is_main_process, rank_and_world_size
from kshot.training.log import Log
from kshot.training.optimizer import make_optimizer
from kshot.training.prefetch import Prefetcher
from kshot.training.schedule import Progress, Schedule

# The CPU allocator raises a plain RuntimeError; only CUDA has an error of its own.
_NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")


class Learner(Protocol):
    """A model with its data and its loss.

    A learner may also have `lr_multipliers`: factors of the learning rate, by the beginning of the weights' names.
    """

    @property
    def model(self) -> nn.Module:
        """The model to train; the same object each time."""
        ...

    def batch(self, step: int, number: int, size: int) -> Any:
        """Batch `number` of the whole run, with `size` examples, for this step: depends on its arguments alone."""
        ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name; "loss" is minimized."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures of the model as it is, in eval mode."""
        ...


class TrainingResult(NamedTuple):
    """How a training ended."""

    steps: int
    """Steps done."""
    best_step: int
    """Step of the best validation."""
    best: float
    """The figure of that validation by which the best state was chosen."""
    stopped: str
    """Why training ended before its last step, or an empty text."""
    path: Path
    """Checkpoint of the best state."""


@dataclass
class _State:
    """What a checkpoint holds beside weights and the optimizer's state."""

    step: int = 0
    best_step: int = -1
    best: float = math.nan
    waited: int = 0


def train(
    learner: Learner,
    schedule: Schedule,
    out: Path,
    settings: dict[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train, with checkpoints and a log in `out`; best.safetensors holds the best state.

    settings: everything else that decides the result; a run is resumed only with the same. overwrite: begin anew
    where a run lies already. progress: called after each
    step. Under torchrun each process computes its own part of each step's batches.
    Raises `TrainingError` (loss not finite, memory, another architecture or settings) and `OutputError` (disk).
    """
    with distributed.joined(next(learner.model.parameters()).device):
        return _Run(learner, schedule, out, settings, progress).go(resume, overwrite)


class _Run:
    def __init__(
        self,
        learner: Learner,
        schedule: Schedule,
        out: Path,
        settings: dict[str, Any],
        progress: Progress | None,
    ):
        self.learner, self.schedule, self.out, self.progress = learner, schedule, out, progress
        self.rank, self.world_size = rank_and_world_size()
        # As JSON would return them: tuples become lists.
        self.settings = json.loads(json.dumps({"schedule": asdict(schedule), "processes": self.world_size, **settings}))
        self.weights = [weight for weight in learner.model.parameters() if weight.requires_grad]
        self.optimizer = make_optimizer(
            learner.model,
            schedule.lr,
            schedule.weight_decay,
            schedule.muon_lr_ratio,
            getattr(learner, "lr_multipliers", {}),
        )
        self.average = _moving_average(learner.model, schedule.ema_decay) if schedule.ema_decay else None
        self.state = _State()
        self.log = Log(out, is_main_process())

    def go(self, resume: bool, overwrite: bool) -> TrainingResult:
        self._begin(resume, overwrite)
        distributed.broadcast(self.weights)
        stopped, state = self._out_of_patience(), self.state
        try:
            if not stopped:  # a run that ended early and is resumed stays where it is
                stopped = self._learn()
            self.log.end(state.step, stopped or "all steps are done")
        except (KshotError, KeyboardInterrupt) as error:
            self.log.end(state.step, str(error) or "interrupted")
            raise
        finally:
            self.log.close()
        return TrainingResult(state.step, state.best_step, state.best, stopped, self.out / checkpoint.BEST)

    def _begin(self, resume: bool, overwrite: bool) -> None:
        last = self.out / checkpoint.LAST
        if resume:
            facts, tensors = checkpoint.read(last)
            _check_same(self.settings, facts["settings"], last)
            averaged = self.average.module if self.average else None
            checkpoint.restore(last, tensors, self.learner.model, averaged, self.optimizer)
            self.state = _State(**facts["state"])
            if self.average:
                self.average.n_averaged.fill_(1 + self.state.step)
        elif last.exists() and not overwrite:
            raise TrainingError(
                f"{last}: a run lies here already; resume it (--resume), choose another folder, or begin anew "
                "(--overwrite)"
            )
        self.log.begin(self.settings, self.state.step)

    def _learn(self) -> str:
        """Do all steps that are left; return why it ended before them, or an empty text."""
        with Prefetcher(self._batches(self.state.step)) as batches:
            for batch in batches:
                figures = self._step(batch)
                self.log.step(self.state.step, figures)
                stopped = self._validate_and_save(figures)
                if self.progress and is_main_process():
                    self.progress("training", self.state.step, self.schedule.steps, figures)
                if stopped:
                    return stopped
        return ""

    def _batches(self, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of this process: a tuple for each step, one batch for each accumulated pass."""
        passes, size = self.schedule.grad_accumulation_steps, self.schedule.batch_size
        for step in range(start, self.schedule.steps):
            first = (step * self.world_size + self.rank) * passes
            yield tuple(self.learner.batch(step, first + number, size) for number in range(passes))

    def _step(self, batches: tuple[Any, ...]) -> dict[str, float]:
        step, schedule = self.state.step, self.schedule
        torch.manual_seed(schedule.seed * 1_000_003 + step * 1009 + self.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.rate(step) * group["lr_multiplier"]
        self.learner.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._memory_errors_explained():
            figures = self._gradients(batches)
            # A finite loss may have a gradient that is not; one such step would spoil every checkpoint after it.
            norm = float(nn.utils.clip_grad_norm_(self.weights, schedule.clip or math.inf))
            if not (math.isfinite(figures["loss"]) and math.isfinite(norm)):
                raise TrainingError(self._not_finite(figures | {"norm of the gradient": norm}))
            self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.learner.model)
        self.state.step += 1
        return figures | {"lr": schedule.rate(step)}

    def _gradients(self, batches: tuple[Any, ...]) -> dict[str, float]:
        """Give the weights the mean gradient over all batches of all processes; return the mean losses by name."""
        sums: dict[str, float] = {}
        for batch in batches:
            losses = self._losses(batch)
            (losses["loss"] / len(batches)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        distributed.average_gradients(self.weights)
        return distributed.average(sums)

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        kind = next(self.learner.model.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.schedule.dtype == "bfloat16"):
            return self.learner.losses(batch)

    def _validate_and_save(self, figures: dict[str, float]) -> str:
        """Validate and save where it is due; return why training ends now, or an empty text."""
        state, schedule = self.state, self.schedule
        end, stopped = state.step == schedule.steps, ""
        if state.step % schedule.validate_every == 0 or end:
            found = self._validated()
            figures |= {f"val_{name}": value for name, value in found.items()}
            self.log.validation(state.step, found)
            stopped = self._keep_if_best(found)
        if state.step % schedule.save_every == 0 or end or stopped:
            self._save(checkpoint.LAST)
        return stopped

    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        """Figures of the moving average where there is one, since that becomes the result."""
        model = self.learner.model.eval()
        if self.average is None:
            return distributed.from_main_process(self.learner.validate)
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.average.module.state_dict())
        try:
            return distributed.from_main_process(self.learner.validate)
        finally:
            model.load_state_dict(kept)

    def _keep_if_best(self, found: dict[str, float]) -> str:
        """Save the state if it is the best; return why training ends now, or an empty text."""
        name, state = self.schedule.figure, self.state
        if name not in found:
            raise SettingError(f"monitor {name}: a validation gives {', '.join(found)}")
        figure = found[name]
        better = figure > state.best if self.schedule.more_is_better else figure < state.best
        if better or math.isnan(state.best):
            state.best, state.best_step, state.waited = figure, state.step, 0
            self._save(checkpoint.BEST)
            return ""
        state.waited += 1
        return self._out_of_patience()

    def _out_of_patience(self) -> str:
        """Why training ends before its last step, or an empty text."""
        patience, waited = self.schedule.patience, self.state.waited
        return f"no better {self.schedule.figure} in {waited} validations" if 0 < patience <= waited else ""

    def _save(self, name: str) -> None:
        if is_main_process():
            facts = {"state": vars(self.state), "settings": self.settings}
            averaged = self.average.module if self.average else None
            checkpoint.save(self.out / name, facts, self.learner.model, averaged, self.optimizer)

    @contextmanager
    def _memory_errors_explained(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
                raise TrainingError(self._out_of_memory()) from error
            raise

    def _out_of_memory(self) -> str:
        size, passes = self.schedule.batch_size, self.schedule.grad_accumulation_steps
        message = f"out of memory in step {self.state.step} with batches of {size}"
        if size == 1:
            return f"{message}; use smaller images, dtype bfloat16, or a machine with more memory"
        half = max(divisor for divisor in range(1, size // 2 + 1) if size % divisor == 0)
        passes = passes * size // half
        return (
            f"{message}; use a batch size of {half} with {passes} accumulation steps (--batch-size {half} "
            f"--grad-accumulation-steps {passes}), which learns from as many examples in each step; a resumed run goes "
            "on from its last checkpoint"
        )

    def _not_finite(self, figures: dict[str, float]) -> str:
        values = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        last = self.out / checkpoint.LAST
        kept = f"the last good state is {last}" if last.exists() else "no state was saved yet"
        return f"step {self.state.step}: the loss is not finite ({values}); {kept}. Try a smaller lr, or dtype float32"


def _moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of the weights; it starts at the weights as they are."""

    def updated(average: Tensor, weight: Tensor, updates: Tensor | int) -> Tensor:
        # A young average forgets faster, so that the random start does not stay in it.
        return average.lerp(weight, 1 - min(decay, int(updates) / (9 + int(updates))))

    made = AveragedModel(model, avg_fn=updated)
    made.n_averaged.fill_(1)  # 0 would replace the start by the first update
    return made


def _check_same(settings: dict[str, Any], before: dict[str, Any], path: Path) -> None:
    """Raise `TrainingError` that names what changed; the way a step's examples are cut into batches may change."""
    here, there = _deciding(settings), _deciding(before)
    changed = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if changed:
        told = "; ".join(f"{name}: {there.get(name)} then, {here.get(name)} now" for name in changed)
        raise TrainingError(f"{path}: was trained with other settings ({told}); resume with the same, or begin anew")


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """All settings that decide the result, by name, those of the schedule among the others."""
    flat = {name: value for name, value in settings.items() if name not in {"schedule", "processes"}}
    schedule = dict(settings["schedule"])
    parts = [schedule.pop(name, 1) for name in ("batch_size", "grad_accumulation_steps")]
    return flat | schedule | {"examples a step": math.prod([*parts, settings.get("processes", 1)])}
