"""What a manifest says of an image that was done, from the whole of it or from strips of its rows."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kshot.io.manifest import DONE, EMPTY, Record
from kshot.ops.components import ComponentTable, StripComponents, count_components
from kshot.types import Prediction, uncertainty_of

MASKS = "png"


class RunningStatistics:
    """The figures of an image whose labels and scores come in strips of rows, from the top."""

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.total = [0.0] * (len(classes) + 1)  # by label: the scores of all pixels
        self.components = StripComponents()
        self._hash = hashlib.sha256()

    def add(self, labels: NDArray[np.uint8], scores: NDArray[np.float32]) -> None:
        """Count the next rows: labels (r, w), scores (N+1, r, w)."""
        for index in range(1, len(self.classes) + 1):
            self.total[index] += float(scores[index].sum(dtype=np.float64))
        self.components.add(labels, np.take_along_axis(scores, labels[None], 0)[0])

    def add_kept(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows (r, w) of what is kept of the labels, for their hash."""
        self._hash.update(labels.tobytes())

    def record(
        self,
        size_hw: tuple[int, int],
        present: Mapping[str, float],
        outputs: dict[str, str],
        table: ComponentTable,
        kept: NDArray[np.bool_],
        specks: int = 0,
    ) -> Record:
        """What `record_of` says of the whole; the uncertainty is that of `Prediction.uncertainty`.

        table: of `components`. kept: (n,) which of them are not taken for background. specks: how many are since they
        are too small.
        """
        count, labels = len(self.classes) + 1, table.labels[kept]
        pixels = np.bincount(labels, table.areas[kept], count).astype(np.int64).tolist()
        inside = np.bincount(labels, table.score_sums[kept], count).tolist()
        figures = list(zip(inside, self.total, pixels, strict=True))
        uncertainty = uncertainty_of([sums for sums in figures if sums[2]], present)
        scores = [inside / pixels if pixels else 0.0 for inside, _, pixels in figures]
        record = _classes(self.classes, present, pixels, table.counts(kept), scores)
        return _header(size_hw, uncertainty, outputs, any(pixels), self._hash.hexdigest(), specks) | record


def record_of(prediction: Prediction, outputs: dict[str, str], objects: Mapping[str, int] | None = None) -> Record:
    """What a manifest says of a prediction, but for its input.

    outputs: the path of each format's file. objects: how many of each class; by default the connected components.
    """
    pixels = [0, *prediction.areas().values()]
    inside = [prediction.scores[i][prediction.mask == i] for i in range(1, len(pixels))]
    scores = [0.0, *(float(each.mean()) if each.size else 0.0 for each in inside)]
    counts = count_components(prediction.mask)
    if objects is not None:
        counts = {label: objects.get(name, 0) for label, name in enumerate(prediction.classes, 1)}
    record = _classes(prediction.classes, prediction.present, pixels, counts, scores)
    sha256 = hash_of_labels(prediction.mask)
    header = _header(prediction.size_hw, prediction.uncertainty, outputs, any(pixels), sha256, prediction.specks)
    return header | record


def hash_of_labels(mask: NDArray[np.uint8]) -> str:
    """sha256 over the labels (h, w) of a mask, row by row."""
    return hashlib.sha256(mask.tobytes()).hexdigest()


def _header(
    size_hw: tuple[int, int], uncertainty: float, outputs: dict[str, str], found: bool, sha256: str, specks: int
) -> Record:
    return {
        "status": DONE if found else EMPTY,
        "size_hw": list(size_hw),
        "uncertainty": round(uncertainty, 4),
        "mask": outputs[MASKS],
        "mask_sha256": sha256,
        "outputs": outputs,
        "specks": specks,
    }


def _classes(
    classes: Sequence[str],
    present: Mapping[str, float],
    pixels: Sequence[int],
    objects: Mapping[int, int],
    scores: Sequence[float],
) -> Record:
    """pixels, objects and scores go by the label."""
    return {
        "classes": {
            name: {
                "present": round(float(present[name]), 4),
                "pixels": pixels[label],
                "objects": objects.get(label, 0),
                "score": round(scores[label], 4),
            }
            for label, name in enumerate(classes, 1)
        }
    }
