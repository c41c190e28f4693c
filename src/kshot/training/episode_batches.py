"""Episodes as supports and queries on the grid, with features that are computed once."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kshot.data.base import Dataset
from kshot.episodes.sampler import Episode
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from kshot.methods.base import Support
from kshot.prompts import grid_mask
from kshot.segmenter import Segmenter
from kshot.training.augment import Augmented, Augmenter
from kshot.types import IGNORE

_MAX_QUERY_MASKS = 16384  # in memory, some kilobytes each


class Example(NamedTuple):
    """An episode on the grid."""

    supports: tuple[Support, ...]
    """Of all classes of the episode."""
    query: Support
    """The query, labelled as a support would be; base classes that the episode lacks are background."""

    def to(self, device: torch.device) -> "Example":
        """The same example on another device."""
        return Example(tuple(_moved(each, device) for each in self.supports), _moved(self.query, device))


class Examples:
    """Makes examples from episodes of a data set. cache: folder of features. augmenter: changes supports."""

    def __init__(self, segmenter: Segmenter, view: Dataset, cache: Path | None, augmenter: Augmenter | None = None):
        self.segmenter, self.view, self.augmenter = segmenter, view, augmenter
        self.runner = EpisodeRunner(segmenter, view, FeatureCache(cache))
        self._query_masks = lru_cache(maxsize=_MAX_QUERY_MASKS)(self._make_query_masks)

    def make(self, episode: Episode, number: int) -> Example:
        """The example of an episode. number: of the example in training, by which the augmenter chooses variants."""
        if self.augmenter is None:
            return Example(self.runner.supports(episode), self._query(episode))
        supports: list[Support] = []
        for way, images in enumerate(episode.supports, 1):
            for image in images:
                made = self.augmenter.variant(image, episode.classes[way - 1], number)
                if made is None:
                    supports += self.runner.supports(_only(episode, way, image))
                else:
                    supports.append(_augmented_support(made, way, episode.classes))
        return Example(tuple(supports), self._query(episode))

    def _query(self, episode: Episode) -> Support:
        return Support(self.runner.features(episode.query), *self._query_masks(episode.query, episode.classes))

    def _make_query_masks(self, image: str, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Soft masks of the classes (N, gh, gw), and the labelled part of each patch (gh, gw)."""
        frame = self.runner.features(image).frame
        labels = torch.from_numpy(self.view.way_mask(image, classes))
        masks = torch.stack([labels == way for way in range(1, len(classes) + 1)])
        return grid_mask(masks, frame), grid_mask(labels != IGNORE, frame)


def _only(episode: Episode, way: int, image: str) -> Episode:
    """The episode with this one support."""
    supports = tuple((image,) if number == way else () for number in range(1, len(episode.classes) + 1))
    return replace(episode, supports=supports)


def _augmented_support(made: Augmented, way: int, classes: tuple[int, ...]) -> Support:
    """An augmented image as the support of one class; pixels of the other classes are ignored, as in evaluation."""
    features = made.features
    others = [c for c in classes if c != classes[way - 1]]
    ignored = np.isin(made.labels, others) | (made.labels == IGNORE)
    masks: Tensor = torch.zeros(len(classes), *features.grid_hw)
    masks[way - 1] = grid_mask(made.labels == classes[way - 1], features.frame)
    return Support(features, masks, grid_mask(~ignored, features.frame))


def _moved(support: Support, device: torch.device) -> Support:
    if device.type == "cpu":
        return support
    features = replace(support.features, features=support.features.features.to(device), token=None, objectness=None)
    return replace(support, features=features, masks=support.masks.to(device), valid_mask=support.valid_mask.to(device))
