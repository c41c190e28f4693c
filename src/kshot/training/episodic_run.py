"""A whole run of `kshot train episodic`: from a data set to a head that inference reads, and episodes to test it on."""

import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kshot.data.base import Dataset
from kshot.episodes.csv import write_episodes
from kshot.episodes.sampler import Episodes, draw_episodes
from kshot.errors import SettingError, TrainingError
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from kshot.io.atomic import write_text
from kshot.io.tensor_file import FILE, write_learned
from kshot.segmenter import Segmenter
from kshot.training import checkpoint, trainer
from kshot.training.augment import Augmenter
from kshot.training.class_splits import Sampler, base_view, facts_of, novel_view, split_classes
from kshot.training.episode_batches import Examples
from kshot.training.episodic import Episodic, channels_of, make_head
from kshot.training.episodic_recipes import Recipe

NOVEL, SUMMARY, _BEFORE = "novel.csv", "result.json", "before.json"


@dataclass(frozen=True)
class Choices:
    """What is learned, on which classes and episodes; the names are those of the command's options."""

    method: str = "prototype"
    novel: tuple[str, ...] = ()
    novel_every: int = 0
    novel_offset: int = 0
    base: tuple[str, ...] = ()
    split: str | None = None
    start: str = "identity"
    width: int | None = None
    cosines: bool = True
    way: int = 1
    shot: int = 1
    episodes_per_epoch: int | None = None
    validation: int = 100
    test: int = 200
    augment: tuple[str, ...] = ()
    variants: int = 3
    seed: int = 0
    dtype: str = "float32"


@dataclass(frozen=True)
class Found:
    """before, best: novel mIoU (0..1) of the validation episodes, untrained and at best. epochs: done.

    told: what to know of the run, for people.
    """

    before: float
    best: float
    best_epoch: int
    epochs: int
    steps: int
    stopped: str
    told: tuple[str, ...] = field(default=())


def learn(
    segmenter: Segmenter,
    data: Dataset,
    out: Path,
    choices: Choices,
    recipe: Recipe,
    *,
    cache: Path | None = None,
    resume: bool = False,
    progress: trainer.Progress | None = None,
) -> Found:
    """Train, and write OUT/head.safetensors, OUT/novel.csv (episodes to test on) and OUT/result.json.

    segmenter: its method must be the one that is learned. Raises `SettingError`, `DatasetError`, `TrainingError`,
    `OutputError`.
    """
    if recipe.protocol == "hsnet" and choices.method == "dense-comparison" and choices.way == 1:
        warned: tuple[str, ...] = ("hsnet queries always show their class: a head learns more of absence from fs-cs",)
    else:
        warned = ()
    job, small = _job(segmenter, data, choices, recipe, cache)
    epoch_steps = steps_of(choices.episodes_per_epoch or job.sampler.pairs, recipe)
    schedule = recipe.schedule(epoch_steps, dtype=choices.dtype, seed=choices.seed)
    # How a step's episodes are cut into batches may change when a run is resumed; all else must not.
    how = {name: value for name, value in asdict(recipe).items() if name not in {"batch_size", "accumulate"}}
    settings = json.loads(json.dumps({"recipe": how, "choices": asdict(choices), **job.told}))
    first = os.environ.get("RANK", "0") == "0"
    before = _untrained(job, out, resume) if first else math.nan
    outcome = trainer.train(job, schedule, out, settings, resume=resume, progress=progress)
    if first:  # the others may be done before the best state is written
        write_learned(out / FILE, job.learned(checkpoint.weights_of(outcome.path)[1], segmenter.origin))
        write_episodes(out / NOVEL, _test_episodes(data, job, choices))
    left = (f"left out of the base, with too few images: {', '.join(small)}",) if small else ()
    found = Found(
        before=before,
        best=outcome.best[1],
        best_epoch=math.ceil(outcome.best[0] / epoch_steps),
        epochs=math.ceil(outcome.steps / epoch_steps),
        steps=outcome.steps,
        stopped=outcome.stopped,
        told=(*left, *warned, *((outcome.stopped,) if outcome.stopped else ())),
    )
    if first:
        write_text(out / SUMMARY, json.dumps(asdict(found), indent=2) + "\n")
    return found


def steps_of(episodes: int, recipe: Recipe) -> int:
    """Steps of an epoch of so many episodes, whichever number of processes shares them."""
    together = recipe.batch_size * recipe.accumulate * int(os.environ.get("WORLD_SIZE", "1"))
    return max(1, math.ceil(episodes / together))


def _job(
    segmenter: Segmenter, data: Dataset, choices: Choices, recipe: Recipe, cache: Path | None
) -> tuple[Episodic, tuple[str, ...]]:
    if segmenter.settings != segmenter.method.Settings():
        raise SettingError("training starts from the method's own settings; leave --set out")
    every = {"every": choices.novel_every, "offset": choices.novel_offset}
    split = split_classes(data, base=choices.base, novel=choices.novel, **every)
    view, small = base_view(data, split, choices.split or data.support_split, choices.shot)
    novel = novel_view(data, split)
    validation = draw_episodes(novel, "hsnet", 1, choices.shot, choices.validation, choices.seed, drop_small=True)
    augmenter = None
    if choices.augment:
        kept = FeatureCache(cache)
        augmenter = Augmenter(segmenter, view, kept, choices.augment, choices.variants, choices.seed)
    examples = Examples(segmenter, view, cache, augmenter)
    channels = channels_of(examples.runner.features(view.ids()[0]))
    shape: dict[str, Any] = {"start": choices.start, "width": choices.width, "cosines": choices.cosines}
    head = make_head(choices.method, channels, seed=choices.seed, **shape)
    job = Episodic(
        model=head,
        examples=examples,
        sampler=Sampler.of(view, recipe.protocol, choices.way, choices.shot, choices.seed),
        runner=EpisodeRunner(segmenter, novel, FeatureCache(cache)),
        validation=validation,
        recipe=recipe,
        device=torch.device(segmenter.backbone.device),
        told=dict(facts_of(data, split, view)),
    )
    return job, small


@torch.no_grad()
def _untrained(job: Episodic, out: Path, resume: bool) -> float:
    """The novel mIoU of the head as it begins; a resumed run knows it."""
    path = out / _BEFORE
    if resume and path.is_file():
        return float(json.loads(path.read_text())["miou"])
    if (out / checkpoint.LAST).exists():
        raise TrainingError(f"{out}: holds a run already; go on with --resume, or choose another --out")
    job.model.eval()
    found = job.validate()
    write_text(path, json.dumps(found) + "\n")
    return found["miou"]


def _test_episodes(data: Dataset, job: Episodic, choices: Choices) -> Episodes:
    """Episodes that no validation drew, as rows of the whole data set, so that `kshot eval` runs them."""
    novel = job.runner.data
    drawn = draw_episodes(novel, "hsnet", 1, choices.shot, choices.test, choices.seed + 1, drop_small=True)
    return replace(drawn, settings=replace(drawn.settings, fold=data.fold))
