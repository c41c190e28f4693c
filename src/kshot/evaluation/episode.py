"""One episode: fit on its supports, predict its query, count.

Only the cheap part runs here, on features that the cache holds. In the support of one way the pixels of the other
ways count as ignored: they are no background, and that shot does not show them as what they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.data.base import Dataset
from kshot.episodes.sampler import Episode
from kshot.errors import EmptyMaskError
from kshot.features import FeatureCache
from kshot.features.lru import Held
from kshot.io.images import read_image
from kshot.io.tensor_file import Learned
from kshot.methods.base import Support, Task
from kshot.metrics import CalibrationCounts, EpisodeCounts, IoUCounts, boundary_f
from kshot.ops.geometry import FeatureMap
from kshot.prompts import labelled_support
from kshot.segmenter import Segmenter
from kshot.types import IGNORE, Prediction

# Held in memory by each process, so that an image that comes again is neither read nor decoded again.
_FEATURE_BYTES, _PIXEL_BYTES, _MASKS = 300 * 2**20, 200 * 2**20, 8192
Row = dict[str, Any]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of an episode: the prediction, the truth (h, w) with ways as labels, and the task."""

    episode: Episode
    prediction: Prediction
    truth: Pixels
    task: Task


class EpisodeRunner:
    """Runs episodes of one data set with one Segmenter; holds features, so one per process and run.

    score_size: score at this square size instead of the query's own (nearest neighbour), as some published codes do.
    learned: what the method learned, while it still is in training; else its settings say where that lies.
    mirror: part of the size at which the method looks at a query's mirror image, 0 for none. forwards: how many images
    went through the encoder.
    """

    def __init__(self, segmenter: Segmenter, data: Dataset, cache: FeatureCache, score_size: int | None = None):
        self.segmenter, self.data, self.cache, self.score_size = segmenter, data, cache, score_size
        self.learned: Learned | None = None
        self.mirror = float(getattr(segmenter.settings, "mirror", 0.0))
        self._held_features: Held[FeatureMap] = Held(_FEATURE_BYTES, _bytes_of)
        self._held_pixels: Held[Pixels] = Held(_PIXEL_BYTES, lambda pixels: pixels.nbytes)
        self._shown = lru_cache(maxsize=_MASKS)(self._make_shown)

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
        segmenter = self.segmenter
        task: Task = segmenter.method.Task(
            names, self.supports(episode), segmenter.origin, segmenter.settings, self.learned
        )
        features = self.query(episode.query)
        prediction = self.segmenter.decide(task, features, self.picture(episode.query))
        return Outcome(episode, prediction, self.labels(episode.query, episode.classes), task)

    def supports(self, episode: Episode) -> tuple[Support, ...]:
        """The K supports of each way."""
        return tuple(
            self._support(image, way, episode.classes)
            for way, images in enumerate(episode.supports, 1)
            for image in images
        )

    def features(self, image: str) -> FeatureMap:
        """Features of an image: held, from the cache, or made."""
        return self._held_features.get(image, lambda: self._features(image))

    def query(self, image: str) -> FeatureMap:
        """Features of an image as a query: with those of its mirror image, where the method looks at it."""
        if self.mirror <= 0:
            return self.features(image)
        return self._held_features.get((image, self.mirror), lambda: self._query(image))

    def picture(self, image: str) -> Pixels:
        """(h, w, 3) uint8."""
        path = self.data.image_path(image)
        return self._held_pixels.get(image, lambda: read_image(path, max_pixels=self.segmenter.max_pixels))

    def labels(self, image: str, classes: tuple[int, ...]) -> Pixels:
        """(h, w) uint8: ways of an episode as labels 1..N, 255 ignored."""
        return self._held_pixels.get((image, classes), lambda: self.data.way_mask(image, classes))

    def _support(self, image: str, way: int, classes: tuple[int, ...]) -> Support:
        features, own = self.features(image), classes[way - 1]
        shown, known = self._shown(image, own, tuple(c for c in classes if c != own))
        masks = torch.zeros(len(classes), *features.grid_hw)
        masks[way - 1] = shown
        return Support(features, masks, known)

    def _make_shown(self, image: str, own: int, others: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(gh, gw) soft mask of a class, and what is labelled, in a support of its own."""
        labels = self.data.way_mask(image, (own, *others))
        labels = np.where(labels > 1, np.uint8(IGNORE), labels)
        name, features = self.data.classes[own - 1], self.features(image)
        try:
            support = labelled_support(labels, {1: name}, (name,), features, image)
        except EmptyMaskError:
            # An object of half a patch teaches nothing, but the protocol drew it: the episode is scored all the same.
            support = labelled_support(np.where(labels == 1, np.uint8(0), labels), {}, (name,), features, image)
        return support.masks[0], support.known

    def _features(self, image: str) -> FeatureMap:
        path = self.data.image_path(image)
        return self._kept(
            path.read_bytes(),
            lambda: self.segmenter.features(read_image(path, max_pixels=self.segmenter.max_pixels)),
        )

    def _query(self, image: str) -> FeatureMap:
        return self._kept(
            self.data.image_path(image).read_bytes() + f"mirror {self.mirror}".encode(),
            lambda: self.segmenter.mirrored(self.features(image), self.picture(image), self.mirror),
        )

    def _kept(self, data: bytes, make: Callable[[], FeatureMap]) -> FeatureMap:
        segmenter = self.segmenter
        return self.cache.get(data, segmenter.backbone, segmenter.size, segmenter.backbone.spec.patch, make)

    def _at_score_size(self, labels: Pixels) -> Pixels:
        if self.score_size is None:
            return labels
        side = (self.score_size, self.score_size)
        return np.asarray(Image.fromarray(labels).resize(side, Image.Resampling.NEAREST))


def _bytes_of(features: FeatureMap) -> int:
    return features.features.numel() * features.features.element_size()
