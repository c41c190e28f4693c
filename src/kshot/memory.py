"""A task over frames in their order, as of a film or a stack: each is compared with the supports and with earlier ones.

Patch tokens of a frame are matched with those of the frames before it, and the logits of matches are averaged. What is
remembered of a frame is what the supports alone said of it, so that no mistake is handed on from frame to frame: a
result depends on the frames within the memory alone. Matching patch tokens between frames is how labels are propagated
in Jabri et al., Space-Time Correspondence as a Contrastive Random Walk, 2020 (section 3.3).
"""

from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.errors import SettingError
from kshot.methods.base import Task
from kshot.ops.geometry import FeatureMap, near_pairs

DEFAULT_FRAMES = 5
MOST_FRAMES = 64
"""Frames that a memory may hold; each takes what its features take, about a megabyte."""
_KAPPA = 3.0  # concentration of the kernel by which matches count
_REACH = 0.2  # of the longer side of the grid: how far a match may lie
_MOST_WEIGHT = 0.5  # of the memory beside the frame itself: it never outvotes the supports
_CUT = 0.62  # mean cosine of best matches with the frame before, below which another shot begins


def check_memory(frames: int) -> None:
    """Raise `SettingError` for a number of frames that no memory may hold."""
    if not 0 <= frames <= MOST_FRAMES:
        raise SettingError(f"a memory of {frames} frames; expected 0..{MOST_FRAMES}")


@dataclass(frozen=True, eq=False)
class _Remembered:
    """What the supports alone say of a frame."""

    features: FeatureMap
    logits: Tensor
    """(N+1, gh, gw)."""
    presence: Tensor
    """(N,) in 0..1."""


class FrameMemory:
    """Scores frames one after another, with a memory of the last ones of the same shot. Not for several threads."""

    def __init__(self, task: Task, frames: int = DEFAULT_FRAMES):
        """frames: how many earlier ones count, 0..64; 0 scores each by itself. Raises `SettingError`."""
        check_memory(frames)
        self.task = task
        self.classes, self.presence_threshold = task.classes, task.presence_threshold
        self.object_shapes = task.object_shapes
        self.cuts = 0
        """How many shots have ended so far."""
        self._memory: deque[_Remembered] = deque(maxlen=frames)
        self._smoothed = torch.zeros(0)

    def clear(self) -> None:
        """Forget all frames, as where another film begins."""
        self._memory.clear()

    def score(self, features: FeatureMap, image: NDArray[np.uint8] | None = None) -> Tensor:
        """Class logits (N+1, gh, gw) of the next frame; raises as `Task.score` does."""
        own = self.task.score(features, image)
        presence = self.task.presence(features, own)
        logits, self._smoothed = own, presence
        if self._memory.maxlen:
            with torch.inference_mode():
                logits, self._smoothed = self._with_memory(features, own, presence)
            self._memory.append(_Remembered(features, own, presence))
        return logits

    def presence(self, features: FeatureMap, logits: Tensor) -> Tensor:
        """(N,) probability in 0..1 that each class is in the frame that was scored last."""
        return self._smoothed

    def with_pixels(self, logits: Tensor, features: FeatureMap, image: NDArray[np.uint8]) -> Tensor:
        """As the task: single pixels are of the frame alone."""
        return self.task.with_pixels(logits, features, image)

    def _with_memory(self, features: FeatureMap, own: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and presence of a frame, averaged with those that are remembered."""
        if self._memory and self._memory[-1].features.grid_hw != features.grid_hw:
            self._memory.clear()
        near = _near(features.grid_hw)
        total, weights, closeness = torch.zeros_like(own).flatten(1), torch.zeros(own[0].numel()), list[float]()
        for earlier in reversed(self._memory):
            cosines = (features.tokens @ earlier.features.tokens.T).float().masked_fill_(~near, -1.0)
            best, place = cosines.max(1)
            closeness.append(float(best.mean()))
            if len(closeness) == 1 and closeness[0] < _CUT:
                self.cuts += 1
                self._memory.clear()
                return own, presence
            weight = (_KAPPA * (best - 1)).exp()
            total += weight * earlier.logits.flatten(1)[:, place]
            weights += weight
        if not closeness:
            return own, presence
        share = (weights / (1 + weights)).clamp(max=_MOST_WEIGHT)
        logits = torch.lerp(own.flatten(1), total / weights.clamp(min=1e-6), share).view_as(own)
        odds = torch.stack([torch.logit(each.presence, 1e-4) for each in self._memory])
        return logits, torch.sigmoid(torch.lerp(torch.logit(presence, 1e-4), odds.mean(0), float(share.mean())))


@lru_cache(4)
def _near(grid_hw: tuple[int, int]) -> Tensor:
    return near_pairs(grid_hw, max(2, round(_REACH * max(grid_hw))))
