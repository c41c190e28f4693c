"""What a manifest says of an image that was done, from the whole of it or from strips of its rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kshot.io.manifest import DONE, EMPTY, Record
from kshot.ops.components import ComponentCounter, count_components
from kshot.types import Prediction, uncertainty_of

MASKS = "png"


class RunningStatistics:
    """The figures of an image whose labels and scores come in strips of rows, from the top."""

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.pixels = [0] * (len(classes) + 1)
        # Sums of scores by label: over the pixels that have it, and over all.
        self.inside, self.total = [0.0] * (len(classes) + 1), [0.0] * (len(classes) + 1)
        self.components = ComponentCounter()

    def add(self, labels: NDArray[np.uint8], scores: NDArray[np.float32]) -> None:
        """Count the next rows: labels (r, w), scores (N+1, r, w)."""
        for index in range(1, len(self.classes) + 1):
            found = labels == index
            self.pixels[index] += int(found.sum())
            self.inside[index] += float(scores[index][found].sum(dtype=np.float64))
            self.total[index] += float(scores[index].sum(dtype=np.float64))
        self.components.add(labels)

    def record(self, size_hw: tuple[int, int], present: Mapping[str, float], outputs: dict[str, str]) -> Record:
        """What `record_of` says of the whole; the uncertainty is that of `Prediction.uncertainty`."""
        figures = list(zip(self.inside, self.total, self.pixels, strict=True))
        uncertainty = uncertainty_of([sums for sums in figures if sums[2]], present)
        scores = [inside / pixels if pixels else 0.0 for inside, _, pixels in figures]
        record = _classes(self.classes, present, self.pixels, self.components.counts(), scores)
        return _header(size_hw, uncertainty, outputs, any(self.pixels)) | record


def record_of(prediction: Prediction, outputs: dict[str, str]) -> Record:
    """What a manifest says of a prediction, but for its input. outputs: the path of each format's file."""
    pixels = [0, *prediction.areas().values()]
    inside = [prediction.scores[i][prediction.mask == i] for i in range(1, len(pixels))]
    scores = [0.0, *(float(each.mean()) if each.size else 0.0 for each in inside)]
    record = _classes(prediction.classes, prediction.present, pixels, count_components(prediction.mask), scores)
    return _header(prediction.size_hw, prediction.uncertainty, outputs, any(pixels)) | record


def _header(size_hw: tuple[int, int], uncertainty: float, outputs: dict[str, str], found: bool) -> Record:
    return {
        "status": DONE if found else EMPTY,
        "size_hw": list(size_hw),
        "uncertainty": round(uncertainty, 4),
        "mask": outputs[MASKS],
        "outputs": outputs,
    }


def _classes(
    classes: Sequence[str],
    present: Mapping[str, float],
    pixels: Sequence[int],
    components: Mapping[int, int],
    scores: Sequence[float],
) -> Record:
    """pixels, components and scores go by the label."""
    return {
        "classes": {
            name: {
                "present": round(float(present[name]), 4),
                "pixels": pixels[label],
                "regions": components.get(label, 0),
                "score": round(scores[label], 4),
            }
            for label, name in enumerate(classes, 1)
        }
    }
