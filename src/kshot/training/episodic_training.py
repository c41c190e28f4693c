"""Episodic training: a method learns on episodes of base classes, on frozen features.

Only the method's own head learns. The backbone has no gradient, and its features come from a cache. A validation runs
the method as inference does, on fixed episodes of the novel classes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kshot.data.base import Dataset
from kshot.episodes.csv import write_episodes
from kshot.episodes.sampler import Episodes, draw_episodes
from kshot.errors import SettingError, TrainingError
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.result import Result
from kshot.features import FeatureCache
from kshot.io.atomic import write_text
from kshot.io.tensor_file import FILE, Learned, write_learned
from kshot.segmenter import Segmenter
from kshot.training import checkpoint
from kshot.training.augment import Augmenter
from kshot.training.class_splits import EpochSampler, base_view, facts_of, novel_view, split_classes
from kshot.training.distributed import is_main_process, rank_and_world_size
from kshot.training.episode_batches import Example, Examples
from kshot.training.episodic_heads import Head, PatchLogits, cross_entropy, make_head
from kshot.training.episodic_recipes import RECIPES, Recipe
from kshot.training.output_folder import OF_A_RUN, check_output
from kshot.training.schedule import Progress
from kshot.training.trainer import train

NOVEL, SUMMARY, _BEFORE = "novel.csv", "result.json", "before.json"


@dataclass(frozen=True)
class EpisodicResult:
    """What `episodic` made."""

    before: float
    """mIoU (0..1) of the untrained head on the validation episodes."""
    best: float
    """mIoU (0..1) of the best state on the validation episodes."""
    best_epoch: int
    """Epoch of that state, from 1."""
    epochs: int
    """Epochs done."""
    steps: int
    """Steps of the optimizer done."""
    stopped: str
    """Why training ended before its last step, or an empty text."""
    told: tuple[str, ...] = ()
    """Remarks for people: classes that were left out, and what may be done better."""


def episodic(
    segmenter: Segmenter,
    data: Dataset,
    out: Path | str,
    *,
    recipe: Recipe = RECIPES["seed"],
    novel: Sequence[str] = (),
    novel_every: int = 0,
    novel_offset: int = 0,
    base: Sequence[str] = (),
    split: str | None = None,
    start: str = "identity",
    width: int | None = None,
    cosines: bool = True,
    way: int = 1,
    shot: int = 1,
    episodes_per_epoch: int | None = None,
    validation: int = 100,
    test: int = 200,
    augment: Sequence[str] = (),
    variants: int = 3,
    seed: int = 0,
    dtype: str = "float32",
    cache: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EpisodicResult:
    """Train the head of a segmenter's method, `prototype` or `dense-comparison`.

    Writes into `out`: head.safetensors, the `weights` of the method's settings; novel.csv, other episodes of the novel
    classes to test on; result.json.
    novel, novel_every, novel_offset, base: see `split_classes`. split: of the data set, to train on (default: the one
    of its supports). start, width, cosines: see `make_head` and `Projection`. way, shot: of training episodes.
    episodes_per_epoch: default one for each (image, class) pair. validation, test: episodes of novel classes. augment:
    some of `AUGMENTATIONS`; variants: of each support. cache: folder of features. resume: continue the run in `out`.
    overwrite: replace what lies there.
    Raises `SettingError`, `DatasetError`, `TrainingError` and `OutputError`.
    """
    if segmenter.settings != segmenter.method.Settings():
        raise SettingError("training starts from the method's own settings; give the segmenter no others")
    if segmenter.chooses_size:
        raise SettingError("training is at one working size; give the segmenter a size in pixels, or none")
    out = Path(out)
    check_output(out, [*OF_A_RUN, FILE, NOVEL, SUMMARY], overwrite=overwrite)
    classes = split_classes(data, base=base, novel=novel, every=novel_every, offset=novel_offset)
    view, left_out = base_view(data, classes, split or data.support_split, shot)
    facts = facts_of(data, classes, view)
    augmenter = Augmenter(segmenter, view, FeatureCache(cache), augment, variants, seed) if augment else None
    examples = Examples(segmenter, view, cache, augmenter)
    channels = int(examples.runner.features(view.ids()[0]).features.shape[0])
    method = segmenter.method.Task.method
    learner = EpisodicLearner(
        model=make_head(method, channels, start=start, width=width, cosines=cosines, seed=seed),
        examples=examples,
        sampler=EpochSampler.of(view, recipe.protocol, way, shot, seed),
        runner=EpisodeRunner(segmenter, novel_view(data, classes), FeatureCache(cache)),
        validation=draw_episodes(novel_view(data, classes), "hsnet", 1, shot, validation, seed, drop_small=True),
        recipe=recipe,
        device=torch.device(segmenter.backbone.device),
        facts=facts,
    )
    # All processes share the episodes of an epoch.
    step_episodes = recipe.batch_size * recipe.grad_accumulation_steps * rank_and_world_size()[1]
    epoch_steps = max(1, math.ceil((episodes_per_epoch or learner.sampler.pairs) / step_episodes))
    choices = {
        "method": method,
        "start": start,
        "width": width,
        "cosines": cosines,
        "way": way,
        "shot": shot,
        "episodes_per_epoch": episodes_per_epoch,
        "validation": validation,
        "augment": list(augment),
        "variants": variants,
    }
    # The way a step's episodes are cut into batches may change when a run is resumed; all else must not.
    settings = {"recipe": asdict(replace(recipe, batch_size=1, grad_accumulation_steps=1)), "choices": choices, **facts}
    before = _untrained(learner, out, resume) if is_main_process() else math.nan
    schedule = recipe.schedule(epoch_steps, dtype=dtype, seed=seed)
    trained = train(learner, schedule, out, settings, resume=resume, overwrite=overwrite, progress=progress)
    remarks = [f"left out of the base, with too few images: {', '.join(left_out)}"] if left_out else []
    if recipe.protocol == "hsnet" and method == "dense-comparison" and way == 1:
        remarks.append("hsnet queries always show their class: a head learns more of absence from fs-cs")
    result = EpisodicResult(
        before=before,
        best=trained.best,
        best_epoch=math.ceil(trained.best_step / epoch_steps),
        epochs=math.ceil(trained.steps / epoch_steps),
        steps=trained.steps,
        stopped=trained.stopped,
        told=(*remarks, *((trained.stopped,) if trained.stopped else ())),
    )
    if is_main_process():
        write_learned(out / FILE, learner.learned(checkpoint.weights_of(trained.path)[1]))
        # As rows of the whole data set, so that `kshot eval` runs them; another seed than that of the validation.
        drawn = draw_episodes(novel_view(data, classes), "hsnet", 1, shot, test, seed + 1, drop_small=True)
        write_episodes(out / NOVEL, replace(drawn, settings=replace(drawn.settings, fold=data.fold)))
        write_text(out / SUMMARY, json.dumps(asdict(result), indent=2) + "\n")
    return result


@dataclass(eq=False)
class EpisodicLearner:
    """Episodes to a trained head."""

    model: nn.Module
    """The head (see `Head`)."""
    examples: Examples
    """Of base classes."""
    sampler: EpochSampler
    """Episodes of base classes."""
    runner: EpisodeRunner
    """Runs episodes of novel classes, as in evaluation."""
    validation: Episodes
    """Episodes of novel classes."""
    recipe: Recipe
    """How it learns."""
    device: torch.device
    """Where the head lies."""
    facts: Mapping[str, Any]
    """More facts for the file of weights, such as the classes."""

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device)

    def batch(self, step: int, number: int, size: int) -> list[Example]:
        """`size` episodes of base classes."""
        numbers = range(number * size, (number + 1) * size)
        return [self.examples.make(self.sampler[each], each) for each in numbers]

    def losses(self, batch: Sequence[Example]) -> dict[str, Tensor]:
        """Weighted cross-entropies by name; "loss" adds the alignment loss with its weight."""
        head = cast(Head, self.model)
        parts: dict[str, list[PatchLogits]] = {}
        for example in batch:
            for name, predictions in head.predict(example.to(self.device), self.recipe).items():
                parts.setdefault(name, []).extend(predictions)
        # Every step has the same names, as columns of the log; where there is nothing to learn from, no gradient.
        zero = next(self.model.parameters()).sum() * 0
        found = {name: cross_entropy(each, self.recipe.balance) if each else zero for name, each in parts.items()}
        return {"loss": found["query"] + self.recipe.align * found.get("align", zero), **found}

    def validate(self) -> dict[str, float]:
        """mIoU and FB-IoU (0..1) on the validation episodes."""
        self.runner.learned = self.learned(self.model.state_dict())
        rows = tuple(self.runner.run(episode) for episode in self.validation)
        plan = self.validation.settings
        classes = tuple(sorted({c for episode in self.validation for c in episode.classes}))
        result = Result(rows, self.validation.classes, classes, {"way": plan.way, "protocol": plan.protocol})
        return {"miou": result.miou, "fb_iou": result.fb_iou}

    def learned(self, tensors: Mapping[str, Tensor]) -> Learned:
        """What inference reads: the weights, and facts of the backbone that they belong to."""
        head = cast(Head, self.model)
        origin = self.runner.segmenter.feature_spec
        facts = {"method": head.method, "backbone": origin.backbone, "identity": origin.identity, "size": origin.size}
        kept = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        return Learned(facts | head.facts() | dict(self.facts), kept)


@torch.no_grad()
def _untrained(learner: EpisodicLearner, out: Path, resume: bool) -> float:
    """The validation's mIoU of the untrained head; a resumed run reads it."""
    path = out / _BEFORE
    if resume and path.is_file():
        return float(json.loads(path.read_text())["miou"])
    if (out / checkpoint.LAST).exists():
        raise TrainingError(f"{out}: holds a run already; resume it (--resume), or choose another folder")
    learner.model.eval()
    found = learner.validate()
    write_text(path, json.dumps(found) + "\n")
    return found["miou"]
