"""Distil a small encoder from large ones on photographs without labels.

Feature distillation (Romero et al., ICLR 2015), of dense features and of several teachers at once (Ranzinger et al.,
"AM-RADIO", CVPR 2024). The student sees a view at less than half of the teachers' resolution, at several sizes, and
mirrored. A teacher's patch token is compared with the mean of the student's finer tokens that it covers, so the loss
does not reward blurring.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import ImageOps
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones import tiny
from kshot.backbones.base import load_backbone
from kshot.backbones.tiny import Net, NetSizes, Output
from kshot.errors import SettingError, UnknownNameError
from kshot.features.lru import BoundedCache
from kshot.io.images import read_image
from kshot.training import checkpoint
from kshot.training.distributed import is_main_process, local_device
from kshot.training.output_folder import OF_A_RUN, check_output
from kshot.training.schedule import Progress, Schedule
from kshot.training.teacher_features import Targets, TargetSettings, distillation_targets
from kshot.training.trainer import TrainingResult, train
from kshot.training.unlabelled import (
    checked_masks,
    crop_resize,
    find_photos,
    seeded_rng,
    shuffled,
    split_held_out,
    to_pixels,
)

log = logging.getLogger(__name__)
ENCODER = "encoder"  # folder of the result in a run
TARGETS = "targets"  # folder of what the teachers computed
_SIDE, _VIEW = 2, 3  # random streams of their own
_TOKEN_WEIGHT, _OBJECTNESS_WEIGHT = 0.25, 0.25  # of these losses, beside that of the patch tokens
_VALIDATION_BATCH = 32
_IMAGE_BYTES = 2 * 2**30  # decoded photographs in memory, so that most collections are decoded once
_HEAD = 64  # channels of an attention head


@dataclass(frozen=True)
class DistillResult:
    """What `distill` made."""

    encoder: Path
    """Folder of the encoder; it is a backbone."""
    training: TrainingResult
    """How the training ended; the encoder has the weights of the best step."""
    learned_from: int
    """Photographs in the training set."""
    held_out: int
    """Photographs that were only validated on."""
    near_duplicates: int
    """Photographs left out, since they show what a test image shows."""
    explained_variance: float
    """Fraction of the squared length of the teachers' patch tokens that the encoder's channels can hold."""


def distill(
    photos: Path | str,
    out: Path | str,
    teachers: Sequence[str] | str,
    *,
    masks: Path | str | None = None,
    without: Sequence[Path | str] = (),
    limit: int | None = None,
    views: int = 3,
    grid: int = 20,
    start: str = "tiny",
    dim: int = 384,
    width: int = 192,
    blocks: int = 12,
    sides: Sequence[int] = (192, 224, 288, 384),
    epochs: float = 60,
    batch_size: int = 16,
    grad_accumulation_steps: int = 1,
    lr: float = 1.5e-3,
    muon_lr_ratio: float = 13.3,
    seed: int = 0,
    dtype: str = "bfloat16",
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DistillResult:
    """Distil an encoder with objectness from one or several backbones into `out / "encoder"`.

    photos: folder of photographs, sub-folders included; limit: how many are looked at. teachers: names of backbones.
    masks: folder of the objects' masks, at the same place and name, .png; without one the salient region is the object.
    without: folders of test images; photographs that show the same are left out.
    views: of each photograph, the whole and random boxes. grid: patches a side that the teachers see. start: "tiny",
    from the blocks of the encoder inside kshot, or "random". dim: channels of the features. width: channels of a block,
    a multiple of 64 if above 64. blocks: of the encoder; with start "tiny" width and blocks are tiny's. sides: pixels
    of the student's views, in equal parts of the training, multiples of 16 from 32 on; half of the steps take the side
    of the part before. epochs: times through the photographs. batch_size, grad_accumulation_steps, lr, muon_lr_ratio,
    seed, dtype: see `Schedule`. resume: continue the run in `out`. overwrite:
    replace what lies there.
    Under torchrun only the main process writes the encoder. Raises `SettingError`, `InputError`, `BackboneError`,
    `TrainingError` and `OutputError`.
    """
    photos, out, masks = Path(photos), Path(out), checked_masks(masks)
    check_output(out, [*OF_A_RUN, ENCODER], stores=[TARGETS], overwrite=overwrite)
    names = [teachers] if isinstance(teachers, str) else list(teachers)
    if not names:
        raise SettingError("no teacher: name at least one backbone")
    net = _student(start, dim, width, blocks, seed)
    if not sides or any(side < 32 or side % 16 for side in sides):
        raise SettingError(f"sides {','.join(map(str, sides))}: expected multiples of 16 from 32 on")
    settings = TargetSettings(grid=grid, views=views, dim=dim, seed=seed)
    found, near_duplicates = find_photos(photos, limit, without)
    held_out, learned = split_held_out(found)
    log.info("%d photographs to learn from, %d to validate on", len(learned), len(held_out))
    place = local_device(device)
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".targets.lock"):  # of several processes the first computes the targets, the others find them
        loaded = [load_backbone(name, device=str(place), dtype=dtype) for name in names]
        targets = distillation_targets(loaded, photos, found, settings, out / TARGETS, masks=masks, progress=progress)
    schedule = Schedule(
        steps=max(1, round(epochs * len(learned) / (batch_size * grad_accumulation_steps))),
        batch_size=batch_size,
        grad_accumulation_steps=grad_accumulation_steps,
        lr=lr,
        muon_lr_ratio=muon_lr_ratio,
        weight_decay=0.02,
        warmup=0.01,
        ema_decay=0.999,
        dtype=dtype,
        validate_every=500,
        save_every=250,
        seed=seed,
    )
    learner = DistillationLearner(net, found, len(held_out), targets, settings, sides, place, schedule.steps)
    facts: dict[str, Any] = {"what": "distill", "targets": asdict(settings), "sides": list(sides), "start": start}
    facts |= {"teachers": [teacher.identity for teacher in loaded], "photos": len(found)}
    trained = train(learner, schedule, out, facts, resume=resume, overwrite=overwrite, progress=progress)
    if is_main_process():
        checkpoint.load_weights(net, checkpoint.weights_of(trained.path)[1], trained.path)
        scale = round(learner.match_variance(), 4)
        tiny.save(net, out / ENCODER, {"teachers": names, "steps": trained.best_step, "stretched": scale})
    return DistillResult(
        encoder=out / ENCODER,
        training=trained,
        learned_from=len(learned),
        held_out=len(held_out),
        near_duplicates=near_duplicates,
        explained_variance=targets.explained_variance,
    )


def _student(start: str, dim: int, width: int, blocks: int, seed: int) -> Net:
    """A network with an untrained readout, on the blocks of `tiny` or on random ones. Raises `SettingError`."""
    if width > _HEAD and width % _HEAD:
        raise SettingError(f"width {width}: expected a multiple of {_HEAD}, one attention head for each")
    torch.manual_seed(seed)
    middle = max(1, round(blocks * 5 / 6))
    layers = (middle, blocks) if middle < blocks else (blocks,)
    net = Net(NetSizes(dim=dim, width=width, blocks=blocks, heads=max(1, width // _HEAD), layers=layers))
    if start == "random":
        return net
    if start != "tiny":
        raise UnknownNameError("starts", start, ["tiny", "random"])
    known = tiny.packed()
    if (width, blocks) != (known.sizes.width, known.sizes.blocks):
        raise SettingError(
            f"width {width} and blocks {blocks}: those of tiny are {known.sizes.width} and {known.sizes.blocks}; take "
            "these, or start at random (--start random)"
        )
    net.load_state_dict(
        net.state_dict() | {k: v for k, v in known.state_dict().items() if not k.startswith(("readout.", "whole."))}
    )
    return net


class Batch(NamedTuple):
    """Views with their targets."""

    pixels: Tensor  # (b, 3, side, side)
    dense: Tensor  # (b, dim, grid, grid)
    token: Tensor  # (b, dim)
    objectness: Tensor  # (b, grid, grid)
    whole: Tensor  # (b,) 1 for a view of the whole photograph, where alone the object is known; 0 for the others


class DistillationLearner:
    """Photographs and their targets to a trained `Net`; the first `held_out` photographs are validated on."""

    def __init__(
        self,
        model: Net,
        photos: Sequence[Path],
        held_out: int,
        targets: Targets,
        settings: TargetSettings,
        sides: Sequence[int],
        device: torch.device,
        steps: int,
    ):
        self.model = model.to(device)
        self.photos, self.held_out, self.targets = photos, held_out, targets
        self.settings, self.sides, self.device, self.steps = settings, sides, device, steps
        self.images = BoundedCache[NDArray[np.uint8]](_IMAGE_BYTES, lambda image: image.nbytes)
        # The channels of vectors of unit length are tiny; scaled targets have the variance that layers give at first.
        self.scale = settings.dim**0.5
        dense, token = (
            np.asarray(each[:held_out, 0], np.float32).reshape(-1, settings.dim) * self.scale for each in targets[:2]
        )
        self.dense_variance, self.token_variance = (max(float(each.var(0).sum()), 1e-6) for each in (dense, token))
        model.init_output_bias(torch.from_numpy(dense.mean(0)), torch.from_numpy(token.mean(0)))

    def batch(self, step: int, number: int, size: int) -> Batch:
        """Views of `size` photographs; each photograph comes once before one comes again."""
        seed, learned = self.settings.seed, len(self.photos) - self.held_out
        part = step * len(self.sides) // self.steps
        side = self.sides[max(0, part - int(seeded_rng(seed, _SIDE, step).integers(2)))]
        examples = []
        for example in range(number * size, (number + 1) * size):
            photo = self.held_out + shuffled(seed, example, learned)
            rng = seeded_rng(seed, _VIEW, example)
            examples.append(self._example(photo, int(rng.integers(self.settings.views)), side, rng))
        return self._stack(examples)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Fraction of the targets' variance that is not explained, and cross-entropy of objectness."""
        out: Output = self.model(batch.pixels)
        dense = _to_grid(out.dense.float(), self.settings.grid)
        patches = (dense - batch.dense).square().sum(1).mean() / self.dense_variance
        token = (out.token.float() - batch.token).square().sum(1).mean() / self.token_variance
        objectness = self._objectness_loss(out.objectness.float(), batch)
        loss = patches + _TOKEN_WEIGHT * token + _OBJECTNESS_WEIGHT * objectness
        return {"loss": loss, "patches": patches, "token": token, "objectness": objectness}

    def validate(self) -> dict[str, float]:
        """The same losses on the held-out photographs, whole and at the largest size."""
        sums: dict[str, float] = {}
        for batch in self._held_out():
            for name, value in self.losses(batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.pixels) / self.held_out
        return sums

    @torch.no_grad()
    def match_variance(self) -> float:
        """Scale the model's outputs to the variance of the targets; return the factor for the patch tokens.

        Under a squared error, a model that is unsure predicts near the mean. Its tokens then vary too little and their
        cosines are too high for methods whose settings were tuned on a teacher's. Mean and variance are measured on the
        held-out photographs.
        """
        self.model.eval()
        pairs = []
        for batch in self._held_out():
            out = self.model(batch.pixels)
            dense = _to_grid(out.dense.float(), self.settings.grid)
            pairs.append([each.flatten(2).transpose(1, 2).flatten(0, 1) for each in (dense, batch.dense)])
            pairs[-1] += [out.token.float(), batch.token]
        dense, wanted, token, wanted_token = (torch.cat(rows) for rows in zip(*pairs, strict=True))
        dense_match = _match(dense, wanted)
        self.model.match_variance(dense_match, _match(token, wanted_token))
        return dense_match[0]

    def _held_out(self) -> Iterator[Batch]:
        """The held-out photographs, whole and not mirrored, at the largest size."""
        for start in range(0, self.held_out, _VALIDATION_BATCH):
            indices = range(start, min(start + _VALIDATION_BATCH, self.held_out))
            yield self._stack([self._example(index, 0, max(self.sides), None) for index in indices])

    def _example(self, photo: int, view: int, side: int, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """One view with its targets; mirrored at random unless rng is None."""
        settings, read = self.settings, partial(read_image, self.photos[photo])
        # Only the thread that makes batches uses the memory, which is not safe for several.
        image = read() if rng is None else self.images.get(photo, read)
        box = settings.box((image.shape[0], image.shape[1]), photo, view)
        seen = crop_resize(image, box, side)
        dense = _float(self.targets.dense[photo, view]).T.reshape(settings.dim, settings.grid, settings.grid)
        objectness = _float(self.targets.objectness[photo])
        if rng is not None and rng.random() < 0.5:
            seen, dense, objectness = ImageOps.mirror(seen), dense.flip(2), objectness.flip(1)
        pixels = to_pixels([seen], tiny.MEAN_STD, tiny.MEAN_STD)[0]
        token = self.scale * _float(self.targets.token[photo, view])
        return pixels, self.scale * dense, token, objectness, torch.tensor(float(view == 0))

    def _stack(self, examples: Sequence[tuple[Tensor, ...]]) -> Batch:
        return Batch(*(torch.stack(tensors).to(self.device) for tensors in zip(*examples, strict=True)))

    def _objectness_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        found = _to_grid(logits[:, None], self.settings.grid)[:, 0]
        each = F.binary_cross_entropy_with_logits(found, batch.objectness, reduction="none").mean((1, 2))
        return (each * batch.whole).sum() / batch.whole.sum().clamp(min=1)


def _match(found: Tensor, wanted: Tensor) -> tuple[float, Tensor, Tensor]:
    """Factor and means that give the rows `found` (n, dim) the mean and the variance of the rows `wanted` (n, dim)."""
    target, own = (float(rows.var(0, correction=0).sum()) for rows in (wanted, found))
    factor = (target / own) ** 0.5 if min(target, own) > 0 else 1.0  # a single row has no variance
    return factor, found.mean(0), wanted.mean(0)


def _to_grid(planes: Tensor, grid: int) -> Tensor:
    """Planes (b, c, h, w) on a grid: means where they are finer, bilinear where they are coarser."""
    if planes.shape[2] >= grid:
        return F.adaptive_avg_pool2d(planes, grid)
    return F.interpolate(planes, size=(grid, grid), mode="bilinear", align_corners=False)


def _float(array: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))
