"""The mask that is shown of each image: drawn, accepted, predicted by the newest task, or found by an earlier run."""

import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np

from kshot.errors import SettingError
from kshot.features.lru import SharedCache
from kshot.io.images import read_mask
from kshot.methods.base import Support
from kshot.ops.pixel_features import sample_pixels
from kshot.ops.support_crops import support_windows
from kshot.prompts import labelled_support
from kshot.serve.answers import Answer
from kshot.serve.folder_state import FolderState
from kshot.serve.history import Labels
from kshot.serve.images import SCREEN, THUMBNAIL
from kshot.serve.predictions import Fit, Predictions
from kshot.serve.quick import OpenImage
from kshot.types import IGNORE

_SEEN = 64  # masks that pages were given
_ANSWER_BYTES, _OPEN_BYTES, _SUPPORT_BYTES = 128 * 2**20, 256 * 2**20, 256 * 2**20


class StaleError(SettingError):
    """The mask has changed since the page saw it."""


class ShownMasks:
    """Threads may share it. out: the folder whose masks an earlier run wrote."""

    def __init__(self, folder: FolderState, predictions: Predictions, out: Path):
        self.folder, self.predictions, self.out, self.images = folder, predictions, out, folder.images
        self._seen: OrderedDict[tuple[int, int], tuple[Labels | None, Answer]] = OrderedDict()
        self._locks: dict[int, threading.RLock] = {}
        self._answers = SharedCache[Answer](_ANSWER_BYTES, lambda a: 2 * a.labels.nbytes)
        self._opened = SharedCache[OpenImage](_OPEN_BYTES, lambda o: 4 * o.features.features.nbytes + o.view.nbytes)
        self._supports = SharedCache[Support](_SUPPORT_BYTES, _bytes_of)

    def lock_of(self, index: int) -> threading.RLock:
        """Held while the mask of an image changes."""
        with self.folder.lock:
            return self._locks.setdefault(index, threading.RLock())

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of an image. Raises `InputError`s of reading it."""
        return self.images.features(index).frame.size_hw

    def answer(self, index: int) -> Answer:
        """The mask of an image at the size of its view. Raises `InputError`s of reading it."""
        labels, fit = self.folder.labels_of(index), self.predictions.fit_now
        key = index, self.folder.revision(index), fit.number if fit else 0
        return self._answers.get(key, lambda: self._answer(index, labels, fit))

    def of_page(self, index: int) -> tuple[Answer, int]:
        """The mask and its revision, which is remembered for a while, so that what was seen can be accepted."""
        folder = self.folder
        with self.lock_of(index):
            revision, labels = folder.revision(index), folder.labels.get(index)
            answer = self.answer(index)
        with folder.lock:
            self._seen[index, revision] = labels, answer
            while len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
        return answer, revision

    def seen(self, index: int, revision: int | None) -> Answer:
        """The mask that a page was given; predictions may have moved on since. Raises `StaleError`."""
        if revision is None or revision == self.folder.revision(index):
            return self.answer(index)
        seen = self._seen.get((index, revision))
        if seen is None or seen[0] is not self.folder.labels.get(index):
            raise StaleError(f"the mask of {self.images.names[index]} has changed meanwhile; look at it again")
        return seen[1]

    def small(self, index: int) -> Answer:
        """The mask at the size of a thumbnail; a prediction is not refined for it."""
        folder, fit = self.folder, self.predictions.fit_now
        size_hw = self.images.size_of_copy(index, THUMBNAIL)
        if folder.is_open(index) and fit and folder.live and index in folder.facts:
            return self.predictions.small(fit, index, size_hw)
        return self.answer(index).resized(size_hw)

    def opened(self, index: int) -> OpenImage:
        """An image that somebody works on, with what makes answers quick. Raises `InputError`s."""

        def make() -> OpenImage:
            return OpenImage(self.images.features(index), self.images.view(index, SCREEN)).prepared()

        return self._opened.get(index, make)

    def support(self, index: int, labels: Labels, names: tuple[str, ...]) -> Support:
        """An image with its mask as an example, a row for each of the classes. Raises `InputError`s."""

        def make() -> Support:
            task, name = self.images.segmenter.method.Task, self.images.names[index]
            if labels.marks:
                mask = self.answer(index).resized(self.size_of(index)).mask()
            else:
                mask = read_mask(labels.accepted or b"", drawn=False)
            valid = self.images.valid_mask(index, mask.shape)
            mask = mask if valid is None else np.where(valid, mask, np.uint8(IGNORE))
            wanted = {label: name for label, name in enumerate(names, 1) if (mask == label).any()}
            windows = support_windows(np.isin(mask, list(wanted))) if task.crops_supports else ()
            support, *crops = (
                labelled_support(
                    mask if window is None else mask[window.slices],
                    wanted,
                    names,
                    self.images.features(index, window),
                    name,
                )
                for window in (None, *windows)
            )
            pixels = sample_pixels(self.images.pixels(index), [mask]) if task.reads_pixels else None
            return replace(support, pixels=pixels, crops=tuple(crops))

        return self._supports.get((labels.number, names), make)

    def _answer(self, index: int, labels: Labels, fit: Fit | None) -> Answer:
        size_hw = self.images.size_of_copy(index, SCREEN)
        if labels.marks:
            base = Answer.of_png(labels.base) if labels.base else Answer.nothing(size_hw)
            return self.opened(index).answer(labels.marks, base, len(self.folder.classes))
        if labels.accepted is not None:
            return Answer.of_mask(read_mask(labels.accepted, drawn=False)).resized(size_hw)
        if fit is not None and self.folder.live:
            return self.predictions.answer(fit, index, self.images.view(index, SCREEN))
        record = self.folder.records.get(self.images.names[index], {})
        if "mask" in record:
            return Answer.of_mask(read_mask(self.out / record["mask"], drawn=False)).resized(size_hw)
        return Answer.nothing(size_hw)


def _bytes_of(support: Support) -> int:
    return sum(view.features.features.nbytes for view in (support, *support.crops))
