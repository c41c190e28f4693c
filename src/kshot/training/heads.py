"""`kshot train heads`: which cells belong together and which show an object, learned from photographs without labels.

CLIP-DINOiser's recipe (Wysoczańska et al., ECCV 2024, sections 3.2 and 3.3) over any frozen backbone: the affinities of
`obj_proj` are to tell the pairs of cells whose value features a teacher finds alike, `bkg_decoder` the cells of the
object. Both by cross-entropy; a cosine is its own logit there, as in the authors' code, so that alike pairs are pulled
to 1 and the others to -1.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones import headed
from kshot.backbones.base import Backbone
from kshot.backbones.headed import AFFINITY_THRESHOLD, Heads
from kshot.training import checkpoint
from kshot.training.cells import Cells, Seen
from kshot.training.unlabelled import rng

BACKBONE = "backbone"  # folder of the result in a run
_SHUFFLE, _MIRROR = 1, 2
_BATCH = 8


class Batch(NamedTuple):
    """inner: (b, width, grid, grid). alike: (b, n, n) bool. objects: (b, grid, grid) in 0..1."""

    inner: Tensor
    alike: Tensor
    objects: Tensor


class LearnHeads:
    """The job: cells of photographs to trained `Heads`. The first `held` photographs are validated on.

    gamma: cosine of the teacher above which two cells are alike. object_share: rate of `bkg_decoder` in parts of the
    rate of `obj_proj` (section 4.1: 0.01 and 5e-5).
    """

    def __init__(
        self,
        seen: Seen,
        held: int,
        device: torch.device,
        *,
        gamma: float = AFFINITY_THRESHOLD,
        object_share: float = 200.0,
        seed: int = 0,
    ):
        self.seen, self.held, self.device, self.gamma, self.seed = seen, held, device, gamma, seed
        self.shares = {"bkg_decoder.": object_share}
        torch.manual_seed(seed)
        self.model = Heads(seen.carrier.width).to(device)

    def batch(self, step: int, part: int, size: int) -> Batch:
        """`size` photographs; every photograph comes once before one comes again, half of them mirrored."""
        learned = len(self.seen.photos) - self.held
        chosen = []
        for number in range(part * size, (part + 1) * size):
            photo = self.held + int(_order(self.seed, number // learned, learned)[number % learned])
            cells = self.seen(photo)
            if rng(self.seed, _MIRROR, number).random() < 0.5:
                cells = Cells(*(plane.flip(-1) for plane in cells))
            chosen.append(cells)
        return self._stack(chosen)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of affinities and of objectness, and their sum."""
        keys = self.model.keys(batch.inner).float()
        cosines = keys.transpose(1, 2) @ keys  # (b, n, n)
        pairs = F.binary_cross_entropy_with_logits(cosines, batch.alike.float())
        objects = F.binary_cross_entropy_with_logits(self.model.object_logits(batch.inner).float(), batch.objects)
        return {"loss": pairs + objects, "pairs": pairs, "objects": objects}

    def validate(self) -> dict[str, float]:
        """The same losses on photographs that were held out, and the share of pairs told right by a cosine of 0.2."""
        sums: dict[str, float] = {}
        for start in range(0, self.held, _BATCH):
            indices = range(start, min(start + _BATCH, self.held))
            batch = self._stack([self.seen(index) for index in indices])
            found = {name: float(value) for name, value in self.losses(batch).items()}
            keys = self.model.keys(batch.inner)
            found["pairs_right"] = float(
                (((keys.transpose(1, 2) @ keys) >= AFFINITY_THRESHOLD) == batch.alike).float().mean()
            )
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * len(indices) / self.held
        return sums

    def _stack(self, cells: Sequence[Cells]) -> Batch:
        inner, values, objects = (torch.stack(planes).to(self.device) for planes in zip(*cells, strict=True))
        values = F.normalize(values.flatten(2), dim=1)  # (b, c, n)
        return Batch(inner, values.transpose(1, 2) @ values > self.gamma, objects)


def write_backbone(out: Path, name: str, backbone: Backbone, guided_pooling: bool = True) -> Path:
    """The best heads of a run as a folder that `--backbone` takes. Raises `OutputError`.

    guided_pooling: False leaves the features as they are and adds objectness alone.
    """
    _, weights = checkpoint.weights_of(out / checkpoint.BEST)
    headed.write(out / BACKBONE, name, backbone, weights, guided_pooling)
    return out / BACKBONE


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return rng(seed, _SHUFFLE, epoch).permutation(count)
