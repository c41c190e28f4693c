"""Train heads on a frozen backbone, from photographs without labels: which patches belong together, which show objects.

CLIP-DINOiser's recipe (Wysoczańska et al., ECCV 2024, sections 3.2 and 3.3) for any backbone. The affinities of
`obj_proj` learn which pairs of patch tokens a teacher finds alike; `bkg_decoder` learns the patches of the object. Both
minimize a cross-entropy whose logit is the cosine itself, as in the authors' code, so that alike pairs move towards 1
and the others towards -1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones import headed
from kshot.backbones.base import DEFAULT, load_backbone
from kshot.backbones.headed import AFFINITY_THRESHOLD, Heads
from kshot.errors import SettingError
from kshot.training import checkpoint
from kshot.training.distributed import is_main_process, local_device
from kshot.training.output_folder import OF_A_RUN, check_output
from kshot.training.schedule import Progress, Schedule
from kshot.training.teacher_features import PhotoFeatures, TeacherFeatures
from kshot.training.trainer import TrainingResult, train
from kshot.training.unlabelled import checked_masks, find_photos, seeded_rng, shuffled, split_held_out

BACKBONE = "backbone"  # folder of the result in a run
FEATURES = "features"  # folder of what the backbones computed
_MIRROR = 2  # a random stream of its own
_VALIDATION_BATCH = 8
_MAX_HELD_OUT = 64


@dataclass(frozen=True)
class HeadsResult:
    """What `heads` made."""

    backbone: Path
    """Folder of the backbone with its new heads; it is a backbone itself."""
    training: TrainingResult
    """How the training ended; the heads have the weights of the best step."""
    held_out: int
    """Photographs that were only validated on."""


def heads(
    photos: Path | str,
    out: Path | str,
    *,
    backbone: str | None = None,
    layers: Sequence[str] | None = None,
    teacher: str | None = None,
    masks: Path | str | None = None,
    size: int | None = None,
    steps: int = 300,
    batch_size: int = 16,
    grad_accumulation_steps: int = 1,
    lr: float = 1e-3,
    object_lr: float = 0.01,
    affinity_threshold: float = AFFINITY_THRESHOLD,
    objectness_only: bool = False,
    validate_every: int = 50,
    patience: int = 0,
    limit: int = 1000,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> HeadsResult:
    """Train guided pooling and objectness for a backbone into `out / "backbone"`.

    photos: folder of photographs, sub-folders included; limit: how many are looked at. backbone: the one that gets the
    heads (default: kshot's); layers: of its features. teacher: backbone whose patch tokens say what belongs together
    (default: the backbone). masks: folder of the objects' masks, at the same place and name, .png; without one the
    salient region is the object. size: pixels a side in which a photograph is seen (448). lr: learning rate of the
    affinities; object_lr: of objectness. affinity_threshold: cosine of the teacher above which two patch tokens are
    alike. objectness_only: the result leaves the patch tokens as they are. steps, batch_size, grad_accumulation_steps,
    validate_every, patience, seed, dtype: see `Schedule`. resume: continue the run in `out`.
    overwrite: replace what lies there.
    Under torchrun only the main process writes the backbone. Raises `SettingError`, `InputError`, `BackboneError`,
    `TrainingError` and `OutputError`.
    """
    schedule = Schedule(
        steps=steps,
        batch_size=batch_size,
        grad_accumulation_steps=grad_accumulation_steps,
        lr=lr,
        weight_decay=0.0,
        dtype=dtype,
        validate_every=validate_every,
        save_every=validate_every,
        patience=patience,
        seed=seed,
    )
    if object_lr <= 0:
        raise SettingError(f"object_lr {object_lr}: expected more than 0")
    photos, out, masks = Path(photos), Path(out), checked_masks(masks)
    check_output(out, [*OF_A_RUN, BACKBONE], stores=[FEATURES], overwrite=overwrite)
    place = str(local_device(device))
    carrier = load_backbone(backbone or DEFAULT, device=place, layers=layers)
    side = size or 448
    if side < carrier.spec.patch:
        raise SettingError(f"size {side} is smaller than one patch of {carrier.spec.patch} pixels")
    guide = load_backbone(teacher, device=place) if teacher else None
    held_out, learned = split_held_out(find_photos(photos, limit)[0])
    held_out = held_out[:_MAX_HELD_OUT]
    features = TeacherFeatures(carrier, guide, photos, [*held_out, *learned], side, masks, out / FEATURES)
    learner = HeadsLearner(
        features,
        len(held_out),
        carrier.device,
        affinity_threshold=affinity_threshold,
        object_lr_ratio=object_lr / lr,
        seed=seed,
    )
    facts = {
        "what": "heads",
        "backbone": carrier.spec.name,
        "affinity_threshold": affinity_threshold,
        "object_lr": object_lr,
    }
    facts |= {"held_out": len(held_out), **features.facts}
    trained = train(learner, schedule, out, facts, resume=resume, overwrite=overwrite, progress=progress)
    if is_main_process():
        weights = checkpoint.weights_of(trained.path)[1]
        headed.write(out / BACKBONE, backbone or DEFAULT, carrier, weights, not objectness_only)
    return HeadsResult(out / BACKBONE, trained, len(held_out))


class Batch(NamedTuple):
    """What one forward pass learns from."""

    inner: Tensor  # (b, width, grid, grid): what the heads read
    alike: Tensor  # (b, n, n) bool: which pairs of patch tokens the teacher finds alike
    objectness: Tensor  # (b, grid, grid) in 0..1


class HeadsLearner:
    """Features of photographs to trained `Heads`; the first `held_out` photographs are validated on.

    affinity_threshold: cosine of the teacher above which two patch tokens are alike. object_lr_ratio: learning rate of
    `bkg_decoder` divided by that of `obj_proj` (200 in section 4.1: 0.01 and 5e-5).
    """

    def __init__(
        self,
        features: TeacherFeatures,
        held_out: int,
        device: torch.device,
        *,
        affinity_threshold: float = AFFINITY_THRESHOLD,
        object_lr_ratio: float = 200.0,
        seed: int = 0,
    ):
        self.features, self.held_out, self.device = features, held_out, device
        self.affinity_threshold, self.seed = affinity_threshold, seed
        self.lr_multipliers = {"bkg_decoder.": object_lr_ratio}
        torch.manual_seed(seed)
        self.model = Heads(features.carrier.width).to(device)

    def batch(self, step: int, number: int, size: int) -> Batch:
        """`size` photographs, half of them mirrored; each photograph comes once before one comes again."""
        learned = len(self.features.photos) - self.held_out
        chosen = []
        for example in range(number * size, (number + 1) * size):
            features = self.features(self.held_out + shuffled(self.seed, example, learned))
            if seeded_rng(self.seed, _MIRROR, example).random() < 0.5:
                features = PhotoFeatures(*(plane.flip(-1) for plane in features))
            chosen.append(features)
        return self._stack(chosen)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of affinities and of objectness, and their sum."""
        keys = self.model.keys(batch.inner).float()
        cosines = keys.transpose(1, 2) @ keys  # (b, n, n)
        pairs = F.binary_cross_entropy_with_logits(cosines, batch.alike.float())
        objectness = F.binary_cross_entropy_with_logits(self.model.object_logits(batch.inner).float(), batch.objectness)
        return {"loss": pairs + objectness, "pairs": pairs, "objectness": objectness}

    def validate(self) -> dict[str, float]:
        """The same losses on the held-out photographs, and the fraction of pairs that a threshold of 0.2 on the cosine
        classifies correctly."""
        sums: dict[str, float] = {}
        for start in range(0, self.held_out, _VALIDATION_BATCH):
            indices = range(start, min(start + _VALIDATION_BATCH, self.held_out))
            batch = self._stack([self.features(index) for index in indices])
            found = {name: float(value) for name, value in self.losses(batch).items()}
            keys = self.model.keys(batch.inner)
            found["pairs_right"] = float(
                (((keys.transpose(1, 2) @ keys) >= AFFINITY_THRESHOLD) == batch.alike).float().mean()
            )
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * len(indices) / self.held_out
        return sums

    def _stack(self, features: Sequence[PhotoFeatures]) -> Batch:
        inner, values, objectness = (torch.stack(planes).to(self.device) for planes in zip(*features, strict=True))
        values = F.normalize(values.flatten(2), dim=1)  # (b, c, n)
        return Batch(inner, values.transpose(1, 2) @ values > self.affinity_threshold, objectness)
