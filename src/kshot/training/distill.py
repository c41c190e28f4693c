"""`kshot train distill`: a small encoder learns to see what large ones see (feature distillation: Romero et al., ICLR
2015; for dense features of many teachers: Ranzinger et al., "AM-RADIO", CVPR 2024).

The student sees a view at less than half of the teachers' resolution, at several sizes, recoloured and mirrored. A
teacher's cell is taken for the mean of the finer cells that it covers, so nothing tells the student to blur.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageOps
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from kshot.backbones.tiny import Net, Output
from kshot.features.lru import BoundedCache
from kshot.io.images import read_image
from kshot.training import teacher_features
from kshot.training.teacher_features import Targets
from kshot.training.unlabelled import cut, recolour, rng, to_pixels

_SHUFFLE, _SIDE, _VIEW = 1, 2, 3  # what chance is asked for
_BATCH = 32
_PICTURE_BYTES = 2 * 2**30  # decoded, so that most collections are read once


@dataclass(frozen=True)
class Settings:
    """sides: pixels of the student's views, multiples of 16, a rung each: training climbs them in equal parts, half of
    the steps a rung below, since small views teach most for their cost and large ones come last. token, objects:
    weights of these losses beside that of the cells. colour: whether views are recoloured.
    """

    sides: tuple[int, ...] = (128, 128, 128, 160, 192, 224)
    token: float = 0.25
    objects: float = 0.25
    colour: bool = False


class Batch(NamedTuple):
    """pixels: (b, 3, side, side). dense: (b, dim, grid, grid). token: (b, dim). objects: (b, grid, grid).

    whole: (b,) 1 for a view of the whole photograph: only there the object is known.
    """

    pixels: Tensor
    dense: Tensor
    token: Tensor
    objects: Tensor
    whole: Tensor


class Distill:
    """The job: photographs and their targets to a trained `Net`. The first `held` photographs are validated on."""

    def __init__(
        self,
        model: Net,
        photos: Sequence[Path],
        held: int,
        targets: Targets,
        plan: teacher_features.Plan,
        settings: Settings,
        device: torch.device,
        steps: int,
    ):
        self.model = model.to(device).channels_last()
        self.photos, self.held, self.targets = photos, held, targets
        self.plan, self.settings, self.device, self.steps = plan, settings, device, steps
        self.held_pictures = BoundedCache[NDArray[np.uint8]](_PICTURE_BYTES, lambda picture: picture.nbytes)
        # Cells of unit length have tiny channels, which layers of usual size would have to learn to whisper.
        self.scale = plan.dim**0.5
        dense, token = (
            np.asarray(each[:held, 0], np.float32).reshape(-1, plan.dim) * self.scale for each in targets[:2]
        )
        self.spread, self.token_spread = (max(float(each.var(0).sum()), 1e-6) for each in (dense, token))
        model.init_output_bias(torch.from_numpy(dense.mean(0)), torch.from_numpy(token.mean(0)))

    def batch(self, step: int, part: int, size: int) -> Batch:
        """Views of `size` photographs; every photograph comes once before one comes again."""
        settings, learned = self.settings, len(self.photos) - self.held
        rung = step * len(settings.sides) // self.steps
        side = settings.sides[max(0, rung - int(rng(self.plan.seed, _SIDE, step).integers(2)))]
        examples = []
        for number in range(part * size, (part + 1) * size):
            photo = self.held + int(_order(self.plan.seed, number // learned, learned)[number % learned])
            chance = rng(self.plan.seed, _VIEW, number)
            examples.append(self._example(photo, int(chance.integers(self.plan.views)), side, chance))
        return self._stack(examples)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Unexplained share of the variance of cells and tokens, and cross-entropy of objectness."""
        out: Output = self.model(batch.pixels)
        dense = _to_grid(out.dense.float(), self.plan.grid)
        cells = (dense - batch.dense).square().sum(1).mean() / self.spread
        token = (out.token.float() - batch.token).square().sum(1).mean() / self.token_spread
        objects = self._object_loss(out.objectness.float(), batch)
        loss = cells + self.settings.token * token + self.settings.objects * objects
        return {"loss": loss, "cells": cells, "token": token, "objects": objects}

    def validate(self) -> dict[str, float]:
        """The same losses on whole photographs that were held out, at the largest size, in their own colours."""
        sums: dict[str, float] = {}
        for batch in self._held():
            for name, value in self.losses(batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.pixels) / self.held
        return sums

    @torch.no_grad()
    def match_spread(self) -> float:
        """Let the model's cells differ as much as the teachers' do; the factor by which they differed too little.

        Who learns by squared errors plays safe and stays near the mean where it is unsure: cosines come out too high,
        and kernels tuned to a teacher's cosines see one grey. Mean and spread are taken over the held-out photographs.
        """
        self.model.eval()
        pairs = []
        for batch in self._held():
            out = self.model(batch.pixels)
            dense = _to_grid(out.dense.float(), self.plan.grid)
            pairs.append([each.flatten(2).transpose(1, 2).flatten(0, 1) for each in (dense, batch.dense)])
            pairs[-1] += [out.token.float(), batch.token]
        found, wanted, token, wanted_token = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        dense_match, token_match = _match(found, wanted), _match(token, wanted_token)
        self.model.match_variance(dense_match, token_match)
        return dense_match[0]

    def _held(self) -> Iterator[Batch]:
        """The held-out photographs, whole and as they are, at the largest size."""
        for start in range(0, self.held, _BATCH):
            indices = range(start, min(start + _BATCH, self.held))
            yield self._stack([self._example(index, 0, max(self.settings.sides), None) for index in indices])

    def _example(self, photo: int, view: int, side: int, chance: np.random.Generator | None) -> tuple[Tensor, ...]:
        """One view with its targets; without chance neither mirrored nor recoloured."""
        plan, path = self.plan, self.photos[photo]
        # The thread that makes batches is the memory's only user.
        picture = read_image(path) if chance is None else self.held_pictures.get(photo, lambda: read_image(path))
        place = teacher_features.boxes((picture.shape[0], picture.shape[1]), plan, photo, view)
        seen = cut(picture, place, side)
        dense = _float(self.targets.dense[photo, view]).T.reshape(plan.dim, plan.grid, plan.grid)
        objects = _float(self.targets.objects[photo])
        if chance is not None:
            seen = recolour(seen, chance) if self.settings.colour else seen
            if chance.random() < 0.5:
                seen, dense, objects = ImageOps.mirror(seen), dense.flip(2), objects.flip(1)
        pixels = to_pixels([seen], IMAGENET_MEAN, IMAGENET_STD)[0]
        token = self.scale * _float(self.targets.token[photo, view])
        return pixels, self.scale * dense, token, objects, torch.tensor(float(view == 0))

    def _stack(self, examples: Sequence[tuple[Tensor, ...]]) -> Batch:
        stacked = [torch.stack(tensors).to(self.device) for tensors in zip(*examples, strict=True)]
        stacked[0] = stacked[0].contiguous(memory_format=torch.channels_last)
        return Batch(*stacked)

    def _object_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        if not self.plan.objects:
            return logits.sum() * 0
        found = _to_grid(logits[:, None], self.plan.grid)[:, 0]
        each = F.binary_cross_entropy_with_logits(found, batch.objects, reduction="none").mean((1, 2))
        return (each * batch.whole).sum() / batch.whole.sum().clamp(min=1)


def _match(found: Tensor, wanted: Tensor) -> tuple[float, Tensor, Tensor]:
    """Factor and means that give rows found (n, dim) the mean and the spread of wanted (n, dim)."""
    there, here = (float(rows.var(0, correction=0).sum()) for rows in (wanted, found))
    factor = (there / here) ** 0.5 if min(there, here) > 0 else 1.0  # one photograph has one token: nothing to match
    return factor, found.mean(0), wanted.mean(0)


def _to_grid(planes: Tensor, grid: int) -> Tensor:
    """Means of finer cells, or, where there are fewer, what lies between them."""
    if planes.shape[2] >= grid:
        return F.adaptive_avg_pool2d(planes, grid)
    return F.interpolate(planes, size=(grid, grid), mode="bilinear", align_corners=False)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return rng(seed, _SHUFFLE, epoch).permutation(count)


def _float(array: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))
