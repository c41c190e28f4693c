"""What a manifest says of an image that was done, from the whole of it or strip by strip."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kshot.io.manifest import DONE, EMPTY, ClassFacts, Record
from kshot.ops.regions import RegionCounter, count_regions
from kshot.types import Prediction

MASKS = "png"


class Tally:
    """The figures of an image whose labels and scores come in strips of rows, from the top."""

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.pixels = [0] * (len(classes) + 1)
        # Sums of scores by label: over the pixels that have it, and over all.
        self.inside, self.total = [0.0] * (len(classes) + 1), [0.0] * (len(classes) + 1)
        self.regions = RegionCounter()

    def add(self, labels: NDArray[np.uint8], scores: NDArray[np.float32]) -> None:
        """Count the next rows: labels (r, w), scores (N+1, r, w)."""
        for index in range(1, len(self.classes) + 1):
            found = labels == index
            self.pixels[index] += int(found.sum())
            self.inside[index] += float(scores[index][found].sum(dtype=np.float64))
            self.total[index] += float(scores[index].sum(dtype=np.float64))
        self.regions.add(labels)

    def facts(self, size_hw: tuple[int, int], present: Mapping[str, float], outputs: dict[str, str]) -> Record:
        """The figures as `facts_of` has them; the uncertainty is that of `Prediction.uncertainty`."""
        found = [index for index in range(1, len(self.classes) + 1) if self.pixels[index]]
        losses = [1 - self.inside[i] / (self.pixels[i] + self.total[i] - self.inside[i]) for i in found] or [
            max(present.values())
        ]
        scores = [self.inside[i] / self.pixels[i] if self.pixels[i] else 0.0 for i in range(len(self.pixels))]
        uncertainty, regions = sum(losses) / len(losses), self.regions.counts()
        return _record(self.classes, size_hw, uncertainty, outputs, present, self.pixels, regions, scores)


def facts_of(prediction: Prediction, outputs: dict[str, str]) -> Record:
    """What a manifest says of a prediction."""
    areas, regions = prediction.areas(), count_regions(prediction.mask)
    scores = [0.0]
    for index in range(1, len(prediction.classes) + 1):
        inside = prediction.scores[index][prediction.mask == index]
        scores.append(float(inside.mean()) if inside.size else 0.0)
    return _record(
        prediction.classes,
        prediction.size_hw,
        prediction.uncertainty,
        outputs,
        prediction.present,
        [0, *(areas[name] for name in prediction.classes)],
        regions,
        scores,
    )


def _record(
    classes: Sequence[str],
    size_hw: tuple[int, int],
    uncertainty: float,
    outputs: dict[str, str],
    present: Mapping[str, float],
    pixels: Sequence[int],
    regions: Mapping[int, int],
    scores: Sequence[float],
) -> Record:
    """pixels, regions and scores go by the label."""
    facts: dict[str, ClassFacts] = {
        name: {
            "present": round(float(present[name]), 4),
            "pixels": pixels[index],
            "regions": regions.get(index, 0),
            "score": round(scores[index], 4),
        }
        for index, name in enumerate(classes, 1)
    }
    return {
        "status": DONE if any(pixels[1:]) else EMPTY,
        "size_hw": list(size_hw),
        "uncertainty": round(uncertainty, 4),
        "mask": outputs[MASKS],
        "outputs": outputs,
        "classes": facts,
    }
