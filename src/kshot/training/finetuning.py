"""Fine-tune an encoder on episodes, so that its features compare well.

The readout of `density` is in the loss (`density_loss`): what is learned is what the method uses. A second term holds
the features near those of the encoder as it was, on the labelled images and on photographs without labels, so that
what the labelled images do not show is not forgotten. The result lies between the weights as they were and as they
became, which keeps most of what was learned and loses almost nothing elsewhere (WiSE-FT: Wortsman et al., CVPR 2022).
Data sets on which nothing is learned watch over it: a state that loses on one of them is not kept.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.backbones import tiny
from kshot.backbones.base import DEFAULT, Backbone, LearnableBackbone, load_backbone, pick_device
from kshot.data.base import Dataset
from kshot.episodes.sampler import Episodes, draw_episodes
from kshot.errors import SettingError, TrainingError
from kshot.evaluation.episode import EpisodeRunner
from kshot.evaluation.result import Result
from kshot.features import FeatureCache
from kshot.io.atomic import write_text
from kshot.io.images import read_image
from kshot.io.paths import list_images
from kshot.segmenter import Segmenter
from kshot.training import checkpoint
from kshot.training.density_loss import density_losses, grid_labels, token_loss
from kshot.training.distributed import is_main_process
from kshot.training.mask_sources import Batches, LabelledBatch, Source, mask_sources, train_part
from kshot.training.output_folder import OF_A_RUN, check_output
from kshot.training.schedule import Progress, Schedule
from kshot.training.trainer import TrainingResult, train
from kshot.training.unlabelled import RGB, color_jitter, crop_resize, random_resized_crop_box, seeded_rng, to_pixels

ENCODER, SUMMARY, _BEFORE = "encoder", "result.json", "before.json"
_PHOTO = 22  # a random stream of its own
_REJECTED = -1.0  # added to the figure of a state that lost too much, so that it is never the best
_WAYS_WEIGHT, _TOKEN_WEIGHT, _OBJECTNESS_WEIGHT = 0.5, 0.5, 0.25
_OBJECTNESS = "object."  # how the names of its layer's weights begin
_OBJECTNESS_LR = 20.0  # of its layer, which starts at zero, relative to the encoder's
_LR_DECAY = 0.9  # from a block to the one before: earlier blocks know what all images share


@dataclass(frozen=True)
class FinetuneResult:
    """What `finetune` made."""

    encoder: Path | None
    """Folder of the encoder, which is a backbone; None where every state lost too much somewhere."""
    before: Mapping[str, float]
    """mIoU (0..1) of the encoder as it was, by the name of the data set that watches, and "miou", their mean."""
    after: Mapping[str, float]
    """The same of the encoder that was kept."""
    sources: int
    """Sets of images that were labelled together."""
    training: TrainingResult
    """How the training ended."""
    told: tuple[str, ...] = ()
    """Notes for people: what was left out, and what may be done better."""


def finetune(
    backbone: str | None,
    out: Path | str,
    data: Sequence[Dataset],
    checks: Sequence[Dataset],
    *,
    own_network: bool = False,
    partial: Sequence[Dataset] = (),
    photos: Path | str | None = None,
    layers: Sequence[str] | None = None,
    novel: Sequence[str] = (),
    last_blocks: int = 6,
    anchor: float = 1.5,
    mix: float = 0.5,
    tolerance: float = 0.01,
    sides: Sequence[int] = (256, 320, 384),
    steps: int = 1000,
    batch_size: int = 8,
    photos_per_batch: int = 3,
    textures: float = 0.0,
    lr: float = 1.5e-4,
    episodes: int = 60,
    validate_every: int = 150,
    patience: int = 4,
    size: int | None = None,
    seed: int = 0,
    dtype: str = "bfloat16",
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Fine-tune a backbone, and write it into `out / "encoder"`.

    backbone, layers: which one, and read where (default: kshot's). own_network: copy a ViT of patch 16 into kshot's own
    network first, which needs no transformers and learns objectness too. data: data sets to learn from; partial: those
    whose images come from several sources with classes of their own (`mask_sources`). checks: data sets that watch;
    none of their images may be learned from. photos: folder of photographs without labels, for the term that holds
    features. novel: names of classes of which nothing is learned. last_blocks: that learn, 0 for the whole encoder.
    anchor: weight of 1 - cosine to the features as they were. mix: fraction, 0 to 1, of the way from the weights as
    they were to the learned ones, where the result lies. tolerance: mIoU (0..1) that a state may lose on any of
    `checks`. sides: pixels of the views. steps, lr, patience, seed, dtype: see `Schedule`. batch_size: labelled images
    of a step, all of one source; photos_per_batch: photographs beside them. textures: fraction (0..1)
    of the steps that learn textures of the photographs instead (`textures`). episodes: of each data set that watches,
    1-shot; validate_every: steps between them; size: working size there (default: the backbone's). resume: continue the
    run. overwrite: replace what lies there.
    Raises `SettingError`, `DatasetError`, `BackboneError`, `TrainingError` and `OutputError`.
    """
    out = Path(out)
    check_output(out, [*OF_A_RUN, ENCODER, SUMMARY, _BEFORE], overwrite=overwrite)
    if own_network and backbone:
        frozen: Backbone = tiny.from_vit(backbone, pick_device(device))
    else:
        frozen = load_backbone(backbone or DEFAULT, device=device, layers=layers)
    if not isinstance(frozen, LearnableBackbone):
        raise SettingError(f"{frozen.spec.name}: its weights cannot be trained; take tiny, or a ViT of the Hub")
    patch = frozen.spec.patch
    if not sides or any(side < 2 * patch or side % patch for side in sides):
        raise SettingError(f"sides {','.join(map(str, sides))}: expected multiples of its patch, {patch} pixels")
    if not 0 < mix <= 1:
        raise SettingError(f"mix {mix}: expected above 0, and 1 at most")
    if not 0 <= textures < 1:
        raise SettingError(f"textures {textures}: expected 0, or more and below 1")
    if batch_size < 2 or not checks:
        raise SettingError("expected a batch of two images or more, and at least one data set that watches")
    sources, notes = mask_sources([train_part(each) for each in data], [train_part(each) for each in partial], novel)
    _check_apart(sources, checks)
    schedule = Schedule(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        weight_decay=0.01,
        ema_decay=0.995,
        dtype=dtype,
        validate_every=validate_every,
        save_every=max(1, validate_every // 2),
        monitor="+kept",
        patience=patience,
        seed=seed,
    )
    watch = Watch(checks, episodes, seed, size or frozen.spec.size, tolerance)
    found = tuple(list_images(Path(photos))) if photos is not None else ()
    batches = Batches(sources, frozen.spec, sides, seed, found, textures)
    learner = FinetuneLearner(frozen, batches, watch, anchor, mix, found, photos_per_batch)
    learner.choose_blocks(last_blocks)
    facts: dict[str, Any] = {
        "what": "finetune",
        "backbone": frozen.identity,
        "sources": {each.name: each.data.digest(*each.data.splits) for each in sources},
        "checks": {each.name: each.digest() for each in checks},
        "novel": sorted(novel),
        "photos": len(found),
        "choices": [last_blocks, anchor, mix, tolerance, list(sides), photos_per_batch, episodes, watch.size, textures],
    }
    before = watch.start = _before(learner, out, resume, overwrite)
    trained = train(learner, schedule, out, facts, resume=resume, overwrite=overwrite, progress=progress)
    kept = trained.best > _REJECTED / 2
    checkpoint.load_weights(learner.model, checkpoint.weights_of(trained.path)[1], trained.path)
    after = learner.validate() if kept else before
    if is_main_process() and kept:
        told = {"source": backbone or DEFAULT, "steps": trained.best_step, "sources": [each.name for each in sources]}
        learner.mixed().save(out / ENCODER, told)
    result = FinetuneResult(
        encoder=out / ENCODER if kept else None,
        before=before,
        after=after,
        sources=len(sources),
        training=trained,
        told=(*notes, *((trained.stopped,) if trained.stopped else ())),
    )
    write_text(out / SUMMARY, json.dumps({"before": dict(before), "after": dict(after), "kept": kept}, indent=2) + "\n")
    return result


class Watch:
    """Data sets on which nothing is learned: 1-shot episodes of each, read by `density`.

    size: working size. tolerance: mIoU (0..1) that a state may lose on any of them, against `start`.
    """

    def __init__(self, checks: Sequence[Dataset], episodes: int, seed: int, size: int, tolerance: float):
        self.size, self.tolerance = size, tolerance
        self.start: Mapping[str, float] = {}
        self.checks: dict[str, tuple[Dataset, Episodes]] = {}
        for data in checks:
            name = data.name if data.name not in self.checks else f"{data.name} {len(self.checks)}"
            self.checks[name] = data, draw_episodes(data, "hsnet", 1, 1, episodes, seed, drop_small=True)

    def __call__(self, backbone: LearnableBackbone) -> dict[str, float]:
        """mIoU (0..1) by name; "miou", their mean; "kept", the mean less 1 where one of them lost too much."""
        segmenter = Segmenter(backbone=backbone, method="density", refiner="none", size=self.size)
        found = {name: _miou(segmenter, data, episodes) for name, (data, episodes) in self.checks.items()}
        mean = float(np.mean(list(found.values())))
        lost = [name for name, value in found.items() if value < self.start.get(name, 0.0) - self.tolerance]
        return {**found, "miou": mean, "kept": mean + (_REJECTED if lost else 0.0)}


def _miou(segmenter: Segmenter, data: Dataset, episodes: Episodes) -> float:
    runner = EpisodeRunner(segmenter, data, FeatureCache(None), always_present=True)
    rows = tuple(runner.run(episode) for episode in episodes)
    classes = tuple(sorted({c for episode in episodes for c in episode.classes}))
    plan = episodes.settings
    return Result(rows, episodes.classes, classes, {"way": plan.way, "protocol": plan.protocol}).miou


class Step(NamedTuple):
    """What one step sees."""

    labelled: LabelledBatch
    photos: Tensor | None
    """(k, 3, side, side) photographs without labels."""
    number: int
    """Of the batch, which seeds the choice of supports."""


class FinetuneLearner:
    """Labelled images and photographs to a fine-tuned encoder."""

    def __init__(
        self,
        frozen: LearnableBackbone,
        batches: Batches,
        watch: Watch,
        anchor: float,
        mix: float,
        photos: Sequence[Path],
        photos_per_batch: int,
    ):
        self.frozen, self.live = frozen, frozen.copied()
        self.model: nn.Module = self.live.model
        self.batches, self.watch, self.anchor, self.mix = batches, watch, anchor, mix
        self.photos, self.photos_per_batch = tuple(photos), photos_per_batch if photos else 0
        self.lr_multipliers: dict[str, float] = {}

    def choose_blocks(self, last: int) -> None:
        """Let the last blocks learn, and what follows them; 0: everything. Raises `SettingError`."""
        blocks = self.model.get_submodule(self.live.blocks)
        count = len(list(blocks.children()))
        if not 0 <= last <= count:
            raise SettingError(f"last_blocks {last}: {self.live.spec.name} has {count} blocks; 0 lets everything learn")
        first, prefix = (count - last if last else 0), f"{self.live.blocks}."
        names = [name for name, _ in self.model.named_parameters()]
        last_place = max(place for place, name in enumerate(names) if name.startswith(prefix))
        for place, (name, weight) in enumerate(self.model.named_parameters()):
            block = int(name[len(prefix) :].split(".")[0]) if name.startswith(prefix) else count * (place > last_place)
            embedding = not name.startswith(prefix) and place < last_place
            weight.requires_grad_(not last or (block >= first and not embedding))
            power = count if embedding else max(0, count - 1 - block)
            self.lr_multipliers[name] = _OBJECTNESS_LR if name.startswith(_OBJECTNESS) else _LR_DECAY**power

    def batch(self, step: int, number: int, size: int) -> Step:
        """Labelled images of one source, and photographs."""
        labelled, side = self.batches(number, size), self.batches.side(number)
        rng, spec = seeded_rng(self.batches.seed, _PHOTO, number), self.live.spec
        chosen = [self.photos[int(index)] for index in rng.integers(len(self.photos) or 1, size=self.photos_per_batch)]
        views = [_photo_view(read_image(path), side, rng) for path in chosen]
        return Step(labelled, to_pixels(views, spec.mean_rgb, spec.std_rgb) if views else None, number)

    def losses(self, batch: Step) -> dict[str, Tensor]:
        """Losses of the readout, of image tokens and objectness where there are such, and the distance to the features
        as they were."""
        labelled, device = batch.labelled, self.live.device
        pixels = labelled.pixels if batch.photos is None else torch.cat([labelled.pixels, batch.photos])
        encoding = self.live.learnable(pixels.to(device))
        tokens = F.normalize(encoding.dense.flatten(2).transpose(1, 2), dim=2)  # (b, t, c)
        held = slice(len(pixels) % 2, None, 2)  # every second image is enough, and costs half
        with torch.inference_mode():
            before = self.frozen.encode(pixels[held]).dense.flatten(2).transpose(1, 2)
        distance = 1 - F.cosine_similarity(tokens[held], before.clone(), dim=2).mean()
        count = len(labelled.pixels)
        grid = grid_labels(labelled.labels.to(device), labelled.classes, self.live.spec.patch)
        found = density_losses(tokens[:count], grid, torch.Generator().manual_seed(batch.number))
        loss = found.binary + found.dice + _WAYS_WEIGHT * found.ways + self.anchor * distance
        losses = {"binary": found.binary, "dice": found.dice, "ways": found.ways, "distance": distance}
        if encoding.token is not None and labelled.objects:
            losses["token"] = token_loss(F.normalize(encoding.token[:count].float(), dim=1), grid)
            loss = loss + _TOKEN_WEIGHT * losses["token"]
        if encoding.objectness is not None and labelled.objects:
            losses["objectness"] = _objectness_loss(encoding.objectness[:count], grid.classes, grid.valid)
            loss = loss + _OBJECTNESS_WEIGHT * losses["objectness"]
        return {"loss": loss, **losses, "episodes": loss.detach().new_tensor(float(found.episodes))}

    def validate(self) -> dict[str, float]:
        """What the data sets that watch give, see `Watch`."""
        return self.watch(self.mixed())

    @torch.no_grad()
    def mixed(self) -> LearnableBackbone:
        """The encoder with weights between those as they were and as they are; objectness began from nothing."""
        made, start = self.live.copied(), self.frozen.copied().model.state_dict()
        found = {}
        for name, weight in self.live.model.state_dict().items():
            found[name] = weight if name.startswith(_OBJECTNESS) else start[name].lerp(weight, self.mix)
        made.model.load_state_dict(found)
        return made.copied()


def _objectness_loss(logits: Tensor, classes: Tensor, valid: Tensor) -> Tensor:
    """() cross-entropy of logits (b, gh, gw) with what any class covers: (b, n, t) of each patch."""
    shown = classes.sum(1).clamp(max=1)
    each = F.binary_cross_entropy_with_logits(logits.flatten(1).float(), shown, reduction="none")
    return (each * valid).sum() / valid.sum().clamp(min=1)


def _photo_view(image: RGB, side: int, rng: np.random.Generator) -> Any:
    """A random part of a photograph, from a small one that shows a texture to the whole, mirrored at random."""
    box = random_resized_crop_box((image.shape[0], image.shape[1]), rng, 0.05)
    view = crop_resize(image, box, side)
    return color_jitter(ImageOps.mirror(view) if rng.random() < 0.5 else view, rng)


def _check_apart(sources: Sequence[Source], checks: Sequence[Dataset]) -> None:
    """Raise `SettingError` where an image is both learned from and watched."""
    learned = {each.data.image_path(i).resolve() for each in sources for ids in each.images.values() for i in ids}
    for data in checks:
        shared = [image for image in data.ids() if data.image_path(image).resolve() in learned]
        if shared:
            raise SettingError(f"{data.name}: {len(shared)} of its images are learned from, such as {shared[0]}")


@torch.no_grad()
def _before(learner: FinetuneLearner, out: Path, resume: bool, overwrite: bool = False) -> Mapping[str, float]:
    """What the data sets that watch give before the training; a resumed run reads it."""
    path = out / _BEFORE
    if resume and path.is_file():
        found: dict[str, float] = json.loads(path.read_text())
        return found
    if (out / checkpoint.LAST).exists() and not overwrite:
        raise TrainingError(
            f"{out}: holds a run already; resume it (--resume), choose another folder, or begin anew (--overwrite)"
        )
    found = {name: value for name, value in learner.validate().items() if name != "kept" and math.isfinite(value)}
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(found) + "\n")
    return found
