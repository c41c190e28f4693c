"""The working size that suits a task: the larger sizes are tried where supports are left out in turn.

The smallest size is the default and stays unless a larger one is surely better: the mean of the gains in IoU, paired by
left-out image, has to be more than its standard error. This module knows neither backbones nor methods.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.metrics import IoUCounts
from kshot.ops.spread import evenly_spread

log = logging.getLogger(__name__)
AUTO = "auto"
MOST_LEFT_OUT = 5
"""Images that are left out in turn, in all."""
MOST_IMAGES = 2 * MOST_LEFT_OUT
"""Images that a choice looks at: those that are left out, and those that help to find them."""
_FACTORS = (1.0, 1.5, 2.0)
# Methods hold products of all tokens of an image with each other: 67 MB in float32 at this number.
_MOST_TOKENS = 64**2
_FEW_MASKS = "no other was tried, since that takes two supports with masks of a class, which are left out in turn"
_MANY_TOKENS = f"no other was tried, since a larger one has more than {_MOST_TOKENS:,} patch tokens"
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class SizeChoice:
    """Which working size was chosen for a task, and why."""

    size: int
    """Images are resized to about size x size pixels of area."""
    ious: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """{size that was tried: IoU in 0..1 of each left-out image}; empty where nothing could be left out."""
    reason: str = ""
    """Why no other size was tried, where none was."""
    seconds: float | None = field(default=None, compare=False)
    """How long it took; a task file does not keep it."""

    def to_dict(self) -> dict[str, Any]:
        """For task files and manifests, without the time."""
        return {"size": self.size, "ious": {str(size): list(v) for size, v in self.ious.items()}, "reason": self.reason}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "SizeChoice":
        """Undo `to_dict`."""
        ious = {int(size): tuple(values) for size, values in facts["ious"].items()}
        return cls(facts["size"], ious, facts["reason"])

    def __str__(self) -> str:
        if not self.ious:
            return f"size {self.size}, the default: {self.reason}"
        means = ", ".join(f"{100 * np.mean(ious):.1f} % at {size}" for size, ious in self.ious.items())
        took = "" if self.seconds is None else f" ({self.seconds:.0f} s)"
        return f"size {self.size}: mean IoU of {len(self.ious[self.size])} left-out supports {means}{took}"


def candidate_sizes(size: int, patch: int) -> tuple[int, ...]:
    """A backbone's own size, then 1.5 and 2 times as much in whole patches, as far as 4,096 patch tokens go."""
    larger = (patch * round(factor * size / patch) for factor in _FACTORS[1:])
    return size, *(each for each in larger if (each / patch) ** 2 <= _MOST_TOKENS)


def images_to_try(areas: NDArray[np.floating]) -> tuple[int, ...]:
    """Indices of the images that a choice looks at, at most `MOST_IMAGES`, in their order.

    areas: (images, classes), how much each shows of each class; 0: nothing. Up to five classes count, those that
    several images show; of each, images of all sizes of what they show.
    """
    ways = evenly_spread([way for way in range(areas.shape[1]) if np.count_nonzero(areas[:, way]) > 1], MOST_LEFT_OUT)
    chosen: set[int] = set()
    for way in ways:
        showing = [int(index) for index in np.argsort(-areas[:, way], kind="stable") if areas[index, way] > 0]
        chosen |= set(evenly_spread(showing, MOST_IMAGES // len(ways)))
    return tuple(sorted(chosen))


def images_to_leave_out(areas: NDArray[np.floating]) -> tuple[int, ...]:
    """Indices of up to `MOST_LEFT_OUT` images whose classes are all shown by others too, from large to small ones."""
    several = np.count_nonzero(areas, axis=0) > 1
    fit = [i for i in np.argsort(-areas.sum(1), kind="stable") if areas[i].any() and several[areas[i] > 0].all()]
    return tuple(int(index) for index in evenly_spread(fit, MOST_LEFT_OUT))


def choose_size(
    sizes: Sequence[int],
    areas: NDArray[np.floating],
    truth: Callable[[int], Labels],
    predict: Callable[[int, int], Labels],
) -> SizeChoice:
    """Try the sizes, the smallest first, on images that are left out in turn.

    Each size is compared with the one taken so far, and taken when the mean of its gains is more than their standard
    error; where a size does not gain on average, no larger one is tried.

    areas: (images, N), as `images_to_try` takes. truth: of an image, (h, w) with 1..N, 0 background and 255 ignored.
    predict: of a size and an image, (h, w) with 0..N, from a task that was fitted without this image.
    """
    left_out, started = images_to_leave_out(areas), time.perf_counter()
    if len(left_out) < 2 or len(sizes) < 2:
        choice = SizeChoice(sizes[0], reason=_FEW_MASKS if len(sizes) > 1 else _MANY_TOKENS)
        log.info("%s", choice)
        return choice
    truths = [truth(index) for index in left_out]
    found: dict[int, tuple[float, ...]] = {}
    chosen = sizes[0]
    for size in sizes:
        found[size] = tuple(
            mean_iou(predict(size, index), labels, areas.shape[1])
            for index, labels in zip(left_out, truths, strict=True)
        )
        log.info("size %d: IoU of left-out images %s", size, ", ".join(f"{iou:.3f}" for iou in found[size]))
        gains = np.subtract(found[size], found[chosen])
        if size != chosen and gains.mean() > standard_error(gains):
            chosen = size
        elif size != chosen and gains.mean() <= 0:
            break
    choice = SizeChoice(chosen, found, seconds=time.perf_counter() - started)
    log.info("%s", choice)
    return choice


def standard_error(values: NDArray[np.floating]) -> float:
    """Of the mean of two or more values."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def mean_iou(labels: Labels, truth: Labels, ways: int) -> float:
    """Mean IoU in 0..1 of the classes that the truth (h, w) shows; pixels of 255 do not count."""
    counts = IoUCounts.from_masks(labels, truth, ways)
    return float(counts.iou()[1:][counts.truth[1:] > 0].mean())
