"""One episode: fit on its supports, predict its query, count.

Only the cheap part runs here, on features from the cache. In a support of one way, pixels of the other ways count as
ignored: they are no background, and this shot does not show them as their own class.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.data.base import Dataset
from kshot.episodes.sampler import Episode
from kshot.errors import EmptyMaskError
from kshot.evaluation.records import Row, matches_row
from kshot.features import FeatureCache
from kshot.features.lru import BoundedCache
from kshot.io.images import read_image
from kshot.io.tensor_file import Learned
from kshot.methods.base import Support, Task
from kshot.metrics import CalibrationCounts, EpisodeCounts, IoUCounts, ObjectMatches, boundary_f, match_objects
from kshot.ops.geometry import FeatureMap
from kshot.ops.object_shapes import ObjectShape
from kshot.ops.pixel_features import PixelSamples, sample_pixels
from kshot.ops.support_crops import Window, support_windows
from kshot.prompts import labelled_support, object_shapes
from kshot.segmenter import Segmenter
from kshot.types import IGNORE, Prediction, Thresholds, patch_pixels
from kshot.working_size import SizeChoice, choose_size, images_to_try

# Kept in memory by each process, so that an image that comes again is neither read nor decoded again.
_FEATURE_BYTES, _PIXEL_BYTES, _MASKS, _SAMPLES = 300 * 2**20, 200 * 2**20, 8192, 1024
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class EpisodeResult:
    """What came of an episode."""

    episode: Episode
    prediction: Prediction
    """Of the query, at its own size."""
    truth: Pixels
    """(h, w) label map of the query: ways as 1..N, 0 background, 255 ignored."""
    task: Task
    """What was fitted on the supports."""


class EpisodeRunner:
    """Runs episodes of one data set with one `Segmenter`; it keeps features, so make one per process and run.

    cache: features on disk. score_size: score at this square size in pixels (nearest neighbour) instead of the query's
    own, as some published codes do. instances: how masks are taken apart (`Prediction.instances`), where objects are
    compared with the true ones too. always_present: see `Protocol`. `learned`: the weights of a method that is still in
    training; None reads them from where the method's settings say. A Segmenter that chooses its size does so in each
    episode.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        data: Dataset,
        cache: FeatureCache,
        score_size: int | None = None,
        *,
        always_present: bool = False,
        instances: str | None = None,
    ):
        self.segmenter, self.data, self.cache, self.score_size = segmenter, data, cache, score_size
        self.always_present, self.instances = always_present, instances
        self.learned: Learned | None = None
        self._features_in_memory = BoundedCache[FeatureMap](_FEATURE_BYTES, lambda found: found.features.nbytes)
        self._pixels_in_memory = BoundedCache[Pixels](_PIXEL_BYTES, lambda pixels: pixels.nbytes)
        self._masks = lru_cache(maxsize=_MASKS)(self._make_masks)
        self._windows = lru_cache(maxsize=_MASKS)(self._make_windows)
        self._samples = lru_cache(maxsize=_SAMPLES)(self._make_samples)
        self._shapes = lru_cache(maxsize=_MASKS)(self._make_shapes)

        self.sized = {
            size: EpisodeRunner(
                segmenter.at_size(size), data, cache, score_size, always_present=always_present, instances=instances
            )
            for size in (segmenter.sizes if segmenter.chooses_size else ())
        }
        """The same at each working size that an episode may choose; empty for a Segmenter of one size."""

    @property
    def forwards(self) -> int:
        """How many images had to be encoded."""
        return self.cache.misses

    def run(self, episode: Episode) -> Row:
        """The row of an episode: integers that add, and facts about it."""
        result = self.predict(episode)
        mask, truth = self._at_score_size(result.prediction.mask), self._at_score_size(result.truth)
        counts = IoUCounts.from_masks(mask, truth, len(episode.classes))
        table = EpisodeCounts.of(episode.index, episode.classes, counts).to_table()[0]
        calibration = CalibrationCounts.from_scores(result.prediction.scores, result.truth)
        row: Row = {
            "episode": episode.index,
            "table": table.tolist(),
            "present": [float(p) for p in result.prediction.present.values()],
            "boundary": [None if np.isnan(f) else float(f) for f in boundary_f(mask, truth, len(episode.classes))],
            "calibration": calibration.to_array().tolist(),
            "uncertainty": float(result.prediction.uncertainty),
        }
        if self.sized:
            row["size"] = result.task.feature_spec.size
        if self.instances is not None:
            row["objects"] = [matches_row(matches) for matches in self.matches(result, self.instances)]
        return row

    def matches(self, result: EpisodeResult, method: str) -> list[ObjectMatches]:
        """The objects of each way against the true ones; specks are none, as in a folder (`SPECK_PATCHES`).

        method: as `Prediction.instances` takes it. Raises `DatasetError` where the truth tells no objects apart.
        """
        spec, pred, truth = result.task.feature_spec, result.prediction, result.truth
        least = Thresholds().least_pixels(pred.size_hw, patch_pixels(pred.size_hw, spec.size, spec.patch))
        found = pred.filtered(min_area=least).instances(method, least)
        numbers = self.data.objects(result.episode.query)
        made = []
        for way, name in enumerate(pred.classes, start=1):
            own = [one for one in found if one.label == name]
            boxes, scores = [(one.place, one.crop) for one in own], [one.score or 0.0 for one in own]
            made.append(match_objects(boxes, scores, np.where(truth == way, numbers, 0), truth == IGNORE))
        return made

    def predict(self, episode: Episode) -> EpisodeResult:
        """Fit on the supports, predict the query."""
        if self.sized:
            choice = self.choice(episode)
            return self.sized[choice.size].predict(episode)
        segmenter, task = self.segmenter, self._task(episode, self.supports(episode))
        # A query that shows its class by the rules of the protocol is not asked whether it does.
        least = 0.0 if self.always_present and len(task.classes) == 1 else None
        prediction = segmenter.decide(task, self.features(episode.query), self.image(episode.query), min_presence=least)
        return EpisodeResult(episode, prediction, self.labels(episode.query, episode.classes), task)

    def choice(self, episode: Episode) -> SizeChoice:
        """The working size that suits the supports of an episode, with a Segmenter that chooses it."""
        shown = [(image, way) for way, images in enumerate(episode.supports) for image in images]
        images = list(dict.fromkeys(image for image, _ in shown))
        areas = np.zeros((len(images), len(episode.classes)))
        for image, way in shown:
            areas[images.index(image), way] = (self.labels(image, episode.classes) == way + 1).mean()
        tried = images_to_try(areas)

        def predict(size: int, index: int) -> Pixels:
            runner, hidden = self.sized[size], images[tried[index]]
            kept = {images[other] for other in tried} - {hidden}
            supports = runner.supports(episode, kept)
            task, image = runner._task(episode, supports), self.image(hidden)
            return runner.segmenter.decide(task, runner.features(hidden), image, min_presence=0.0).mask

        def truth(index: int) -> Pixels:
            return self.labels(images[tried[index]], episode.classes)

        return choose_size(self.segmenter.sizes, areas[list(tried)], truth, predict)

    def _task(self, episode: Episode, supports: Sequence[Support]) -> Task:
        segmenter, names = self.segmenter, tuple(self.data.classes[c - 1] for c in episode.classes)
        task: Task = segmenter.method.Task(
            names, tuple(supports), segmenter.feature_spec, segmenter.settings, self.learned
        )
        return task

    def supports(self, episode: Episode, kept: Container[str] | None = None) -> tuple[Support, ...]:
        """The K supports of each way; kept: those of these images alone."""
        return tuple(
            self._support(image_id, way, episode.classes)
            for way, images in enumerate(episode.supports, 1)
            for image_id in images
            if kept is None or image_id in kept
        )

    def features(self, image_id: str, window: Window | None = None) -> FeatureMap:
        """Features of an image, or of a part of it: from memory, from the cache, or computed."""
        return self._features_in_memory.get((image_id, window), lambda: self._features(image_id, window))

    def image(self, image_id: str) -> Pixels:
        """(h, w, 3) uint8, RGB."""
        path = self.data.image_path(image_id)
        return self._pixels_in_memory.get(image_id, lambda: read_image(path, max_pixels=self.segmenter.max_pixels))

    def labels(self, image_id: str, classes: tuple[int, ...]) -> Pixels:
        """(h, w) uint8 label map: class `classes[n - 1]` as label n, 0 elsewhere, 255 ignored."""
        return self._pixels_in_memory.get((image_id, classes), lambda: self.data.way_mask(image_id, classes))

    def _support(self, image_id: str, way: int, classes: tuple[int, ...]) -> Support:
        own, others = classes[way - 1], tuple(c for c in classes if c != classes[way - 1])
        windows = self._windows(image_id, own) if self.segmenter.method.Task.crops_supports else ()
        support, *crops = (self._seen(image_id, way, classes, window) for window in (None, *windows))
        shapes = self._shapes(image_id, own) if self.instances == "learned" else {}
        support = replace(support, crops=tuple(crops), objects=shapes)
        if not self.segmenter.method.Task.reads_pixels:
            return support
        pixels = self._samples(image_id, own, others)
        labels = torch.where(pixels.labels > 0, way, 0).to(torch.uint8)
        return replace(support, pixels=replace(pixels, labels=labels))

    def _seen(self, image_id: str, way: int, classes: tuple[int, ...], window: Window | None) -> Support:
        """The support of an image, or of a part of it."""
        features, own = self.features(image_id, window), classes[way - 1]
        mask, valid_mask = self._masks(image_id, own, tuple(c for c in classes if c != own), window)
        masks = torch.zeros(len(classes), *features.grid_hw)
        masks[way - 1] = mask
        return Support(features, masks, valid_mask)

    def _make_windows(self, image_id: str, own: int) -> tuple[Window, ...]:
        """Where a support of class `own` is cropped."""
        return support_windows(self.data.way_mask(image_id, (own,)) == 1)

    def _make_shapes(self, image_id: str, own: int) -> Mapping[str, ObjectShape]:
        """What the objects of class `own` in a support are like."""
        labels = self.data.way_mask(image_id, (own,))
        return object_shapes(labels, {1: self.data.classes[own - 1]}, self.data.objects(image_id))

    def _make_samples(self, image_id: str, own: int, others: tuple[int, ...]) -> PixelSamples:
        """Single pixels of a support of class `own`, in which `others` are ignored."""
        labels = self.data.way_mask(image_id, (own, *others))
        return sample_pixels(self.image(image_id), [np.where(labels > 1, np.uint8(IGNORE), labels)])

    def _make_masks(
        self, image_id: str, own: int, others: tuple[int, ...], window: Window | None
    ) -> tuple[Tensor, Tensor]:
        """(gh, gw) soft mask of class `own`, and the valid mask, of a support in which `others` are ignored."""
        labels = self.data.way_mask(image_id, (own, *others))
        labels = np.where(labels > 1, np.uint8(IGNORE), labels)
        labels = labels if window is None else labels[window.slices]
        name, features = self.data.classes[own - 1], self.features(image_id, window)
        try:
            support = labelled_support(labels, {1: name}, (name,), features, image_id)
        except EmptyMaskError:
            # An object of half a patch teaches nothing, but the protocol drew it: the episode is scored all the same.
            support = labelled_support(np.where(labels == 1, np.uint8(0), labels), {}, (name,), features, image_id)
        return support.masks[0], support.valid_mask

    def _features(self, image_id: str, window: Window | None) -> FeatureMap:
        path, segmenter = self.data.image_path(image_id), self.segmenter

        def make() -> FeatureMap:
            image = read_image(path, max_pixels=segmenter.max_pixels)
            return segmenter.features(image if window is None else window.of(image))

        part = b"" if window is None else repr(tuple(window)).encode()
        return self.cache.get(path.read_bytes() + part, segmenter.backbone, segmenter.size, make)

    def _at_score_size(self, labels: Pixels) -> Pixels:
        if self.score_size is None:
            return labels
        side = (self.score_size, self.score_size)
        return np.asarray(Image.fromarray(labels).resize(side, Image.Resampling.NEAREST))
