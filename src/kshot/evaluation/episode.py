"""One episode: fit on its supports, predict its query, count.

Only the cheap part runs here, on features that the cache holds. In the support of one way the pixels of the other
ways count as ignored: they are no background, and that shot does not show them as what they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.data.base import Dataset
from kshot.data.episodes import Episode
from kshot.errors import EmptyMaskError
from kshot.features import FeatureCache
from kshot.formats.images import read_image
from kshot.methods.base import Support, Task
from kshot.metrics import CalibrationCounts, EpisodeCounts, IoUCounts, boundary_f
from kshot.ops.geometry import FeatureMap
from kshot.prompts import labelled_support
from kshot.segmenter import Segmenter
from kshot.types import IGNORE, Prediction

# Decoded features held in memory, so that a support that comes again is not read again: about 0.3 GB with ViT-Tiny.
_HELD = 256
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of an episode: the prediction, the truth (h, w) with ways as labels, and the task."""

    episode: Episode
    prediction: Prediction
    truth: NDArray[np.uint8]
    task: Task


class EpisodeRunner:
    """Runs episodes of one data set with one Segmenter; holds features, so one per process and run.

    score_size: score at this square size instead of the query's own (nearest neighbour), as some published codes do.
    forwards: how many images went through the encoder.
    """

    def __init__(self, segmenter: Segmenter, data: Dataset, cache: FeatureCache, score_size: int | None = None):
        self.segmenter, self.data, self.cache, self.score_size = segmenter, data, cache, score_size
        self.features: Callable[[str], FeatureMap] = lru_cache(maxsize=_HELD)(self._features)

    @property
    def forwards(self) -> int:
        """Images that had to be encoded."""
        return self.cache.misses

    def run(self, episode: Episode) -> Row:
        """The row of an episode: integers that add, and facts about it."""
        outcome = self.outcome(episode)
        mask, truth = self._at_score_size(outcome.prediction.mask), self._at_score_size(outcome.truth)
        counts = IoUCounts.from_masks(mask, truth, len(episode.classes))
        table = EpisodeCounts.of(episode.index, episode.classes, counts).to_table()[0]
        calibration = CalibrationCounts.from_scores(outcome.prediction.scores, outcome.truth)
        return {
            "episode": episode.index,
            "table": table.tolist(),
            "present": [float(p) for p in outcome.prediction.present.values()],
            "boundary": [None if np.isnan(f) else float(f) for f in boundary_f(mask, truth, len(episode.classes))],
            "calibration": calibration.to_array().tolist(),
            "uncertainty": float(outcome.prediction.uncertainty),
        }

    def outcome(self, episode: Episode) -> Outcome:
        """Fit on the supports, predict the query."""
        names = tuple(self.data.classes[c - 1] for c in episode.classes)
        supports = [
            self._support(image, way, episode.classes, names)
            for way, images in enumerate(episode.supports, 1)
            for image in images
        ]
        task: Task = self.segmenter.method.Task(names, tuple(supports), self.segmenter.origin, self.segmenter.settings)
        picture = read_image(self.data.image_path(episode.query), max_pixels=self.segmenter.max_pixels)
        prediction = self.segmenter.decide(task, self.features(episode.query), picture)
        return Outcome(episode, prediction, self.data.way_mask(episode.query, episode.classes), task)

    def _support(self, image: str, way: int, classes: tuple[int, ...], names: tuple[str, ...]) -> Support:
        labels = self.data.way_mask(image, classes)
        labels = np.where((labels != 0) & (labels != way), np.uint8(IGNORE), labels)
        features = self.features(image)
        try:
            return labelled_support(labels, {way: names[way - 1]}, names, features, image)
        except EmptyMaskError:
            # An object of half a patch teaches nothing, but the protocol drew it: the episode is scored all the same.
            return labelled_support(np.where(labels == way, np.uint8(0), labels), {}, names, features, image)

    def _features(self, image: str) -> FeatureMap:
        path, segmenter = self.data.image_path(image), self.segmenter
        return self.cache.get(
            path,
            segmenter.backbone,
            segmenter.size,
            segmenter.backbone.spec.patch,
            lambda: segmenter.features(read_image(path, max_pixels=segmenter.max_pixels)),
        )

    def _at_score_size(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.score_size is None:
            return labels
        side = (self.score_size, self.score_size)
        return np.asarray(Image.fromarray(labels).resize(side, Image.Resampling.NEAREST))
