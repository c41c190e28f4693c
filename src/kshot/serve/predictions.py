"""What the newest task says of each image: scores on the grid, kept for thumbnails, thresholds and files."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.errors import SettingError
from kshot.features.lru import SharedCache
from kshot.methods.base import Support, Task
from kshot.ops.geometry import coverage, to_pixels
from kshot.segmenter import Segmenter
from kshot.serve.answers import Answer
from kshot.serve.images import ServedImages
from kshot.types import Prediction, Thresholds, background_outside, patch_pixels, uncertainty_of

_LOGIT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Facts:
    """What is shown beside an image."""

    present: Mapping[str, float]
    """{class: probability in 0..1}."""
    areas: Mapping[str, float]
    """{class: fraction of the image}."""
    uncertainty: float

    def renamed(self, names: Mapping[str, str]) -> "Facts":
        """The same where classes got other names, {old: new}."""
        present, areas = (
            {names.get(name, name): value for name, value in each.items()} for each in (self.present, self.areas)
        )
        return Facts(present, areas, self.uncertainty)


@dataclass(frozen=True, eq=False)
class Fit:
    """A task, and the labels 1..N of the page's classes that its own labels stand for."""

    task: Task
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    """All of the page's classes at the time."""
    number: int
    """Counts up; the highest is the newest."""


@dataclass
class _Scored:
    logits: Tensor
    """(n+1, gh, gw) float16."""
    kept: tuple[int, ...]
    """Rows of classes that are present."""
    present: Mapping[str, float] = field(default_factory=dict)


class Predictions:
    """Fits tasks and scores images with the newest one. Threads may share it."""

    def __init__(self, segmenter: Segmenter, images: ServedImages):
        self.segmenter, self.images = segmenter, images
        self.fit_now: Fit | None = None
        self._scored = SharedCache[_Scored](_LOGIT_BYTES, lambda one: one.logits.nbytes)
        self._fits: dict[tuple[int, ...], Fit] = {}
        self._number = 0
        self._lock = threading.Lock()

    def fit(self, supports: Sequence[Support], classes: Sequence[str], key: tuple[int, ...]) -> Fit:
        """Fit the method on supports whose masks have a row for each class; classes that none shows are left out.

        key: equal keys mean equal supports; a fit of a moment ago is taken again. Raises `SupportError`s.
        """
        known = self._fits.get(key)
        if known is None:
            shown = [i for i in range(len(classes)) if any(bool(support.masks[i].any()) for support in supports)]
            chosen = tuple(support.of_ways(shown) for support in supports)
            segmenter, names = self.segmenter, tuple(classes[i] for i in shown)
            task = segmenter.method.Task(names, chosen, segmenter.feature_spec, segmenter.settings)
            self._number += 1
            known = Fit(task, tuple(i + 1 for i in shown), tuple(classes), self._number)
        with self._lock:
            self._fits.pop(key, None)
            self._fits[key] = known  # the newest last
            while len(self._fits) > 8:
                self._fits.pop(next(iter(self._fits)))
            self.fit_now = known
        return known

    def score(self, fit: Fit, index: int) -> Facts:
        """Score an image on the grid. Raises `InputError`s of reading it."""
        features, scored = self.images.features(index), self._of(fit, index)
        weights = coverage(features.frame)
        scores = scored.logits.float().softmax(0)  # (n+1, gh, gw)
        rows = torch.tensor([0, *scored.kept])
        winner = rows[scores[rows].argmax(0)]
        total, areas, sums = float(weights.sum()), dict.fromkeys(fit.classes, 0.0), []
        for row, label in enumerate(fit.labels, 1):
            inside = (winner == row) * weights
            areas[fit.classes[label - 1]] = float(inside.sum()) / total
            if bool(inside.any()):
                sums.append(
                    (float((scores[row] * inside).sum()), float((scores[row] * weights).sum()), float(inside.sum()))
                )
        present = dict.fromkeys(fit.classes, 0.0) | dict(scored.present)
        return Facts(present, areas, uncertainty_of(sums, present))

    def small(self, fit: Fit, index: int, size_hw: tuple[int, int]) -> Answer:
        """The answer at the size of a thumbnail, by interpolation alone."""
        frame, scored = self.images.features(index).frame, self._of(fit, index)
        pixels = to_pixels(scored.logits.float(), frame, size_hw)
        return self._answer(fit, scored, self._with_data(index, pixels.softmax(0).numpy()))

    def answer(self, fit: Fit, index: int, view: NDArray[np.uint8]) -> Answer:
        """The answer at the size of a view (h, w, 3) of the image, refined."""
        scored = self._of(fit, index)
        found = self._answer(fit, scored, self._refined(fit, index, view))
        return found.without_specks(self._least(found.size_hw))

    def prediction(self, fit: Fit, index: int) -> Prediction:
        """The masks at the image's own size, with a score plane for each of the page's classes."""
        scored, pixels = self._of(fit, index), self.images.pixels(index)
        own = self._refined(fit, index, pixels)
        scores = np.zeros((len(fit.classes) + 1, *own.shape[1:]), np.float32)
        scores[[0, *fit.labels]] = own
        present = dict.fromkeys(fit.classes, 0.0) | dict(scored.present)
        found = Prediction.from_scores(scores, fit.classes, present, pixels, fit.task.presence_threshold)
        return found.filtered(min_area=self._least(found.size_hw))

    def _least(self, size_hw: tuple[int, int]) -> float:
        """The least area of a component that a run keeps, in an image of this height and width."""
        patch = self.segmenter.backbone.spec.patch
        return Thresholds().least_pixels(size_hw, patch_pixels(size_hw, self.segmenter.size, patch))

    def _refined(self, fit: Fit, index: int, view: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n+1, h, w) scores at the size of a view."""
        scored, features = self._of(fit, index), self.images.features(index)
        frame, segmenter = replace(features.frame, size_hw=(view.shape[0], view.shape[1])), self.segmenter
        with torch.inference_mode():
            fine = segmenter.refiner.refine(scored.logits.float(), frame, view, segmenter.refiner_settings)
            scores: NDArray[np.float32] = fit.task.with_pixels(fine, features, view).softmax(0).numpy()
        return self._with_data(index, scores)

    def _with_data(self, index: int, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (n+1, h, w) that are background where the image has no data."""
        valid_mask = self.images.valid_mask(index, scores.shape[1:])
        return scores if valid_mask is None else background_outside(scores, valid_mask)

    def _answer(self, fit: Fit, scored: _Scored, scores: NDArray[np.float32]) -> Answer:
        found = Answer.of_scores(scores, scored.kept)
        of_page = np.array([0, *fit.labels], np.uint8)
        return Answer(of_page[found.labels], found.certainty)

    def _of(self, fit: Fit, index: int) -> _Scored:
        return self._scored.get((fit.number, index), lambda: self._score(fit.task, index))

    def _score(self, task: Task, index: int) -> _Scored:
        features = self.images.features(index)
        with torch.inference_mode():
            try:
                logits = task.score(features)
            except SettingError:  # a method that looks at the image too
                logits = task.score(features, self.images.pixels(index))
            present = dict(zip(task.classes, task.presence(features, logits).tolist(), strict=True))
        least = task.presence_threshold
        kept = tuple(row for row, name in enumerate(task.classes, 1) if present[name] >= least)
        return _Scored(logits.half(), kept, present)
