"""What is known of the served folder: classes, labels, predictions, failures, and when each image last changed."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kshot.io.manifest import FAILED, Record
from kshot.serve.classes import ServedClasses
from kshot.serve.history import Labels
from kshot.serve.images import ServedImages
from kshot.serve.predictions import Facts

DOUBTFUL = 0.5
"""Uncertainty from which an image counts as doubtful."""


class FolderState:
    """Shared by the requests and the background; `lock` guards it.

    records: of a run that is in the folder. live: whether the other images follow what is drawn.
    """

    def __init__(self, images: ServedImages, classes: Sequence[str], records: Sequence[Record], *, live: bool):
        self.images, self.live = images, live
        self.classes = ServedClasses(classes)
        self.labels: dict[int, Labels] = {}
        self.facts: dict[int, Facts] = {}
        self.failures: dict[int, str] = {}
        self.records = {record["input"]: record for record in records}
        self.problem = ""
        """What went wrong in the background last, for people."""
        self.lock = threading.RLock()
        # Browsers keep masks by their revision: a server that starts again goes on counting above the last one.
        self.version = int(1000 * time.time())
        self.touched = 0.0
        """When somebody last drew, by the monotonic clock: the background waits a moment then."""
        self.wanted = 0
        """Counts the changes of examples; a fit that is of fewer is stale."""
        self.counted: tuple[float, dict[str, int]] = (0.0, {})
        """When states were last counted, and how many of each there were."""
        self.reopened: set[int] = set()
        """Images that were drawn on, or are no longer accepted: their masks are to be written again."""
        self._revisions: OrderedDict[int, int] = OrderedDict()
        self._take_records()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.classes.names

    def labels_of(self, index: int) -> Labels:
        """What a person has made of an image."""
        return self.labels.get(index, Labels())

    def is_open(self, index: int) -> bool:
        """Whether nobody has drawn on an image or accepted it."""
        labels = self.labels_of(index)
        return labels.accepted is None and not labels.marks

    def state(self, index: int) -> str:
        """todo, predicted, doubtful, drawn, accepted, rejected or failed."""
        if index in self.failures:
            return "failed"
        labels = self.labels_of(index)
        if labels.marks:
            return "drawn"
        if labels.accepted is not None:
            return "accepted" if any(self.facts[index].areas.values()) else "rejected"
        if index not in self.facts:
            return "todo"
        return "doubtful" if self.facts[index].uncertainty >= DOUBTFUL else "predicted"

    # When it changed

    def revision(self, index: int) -> int:
        """Counts the changes of an image's mask."""
        return self._revisions.get(index, 0)

    def bump(self, index: int | None = None) -> None:
        """Tell the pages that an image, or something else, has changed."""
        with self.lock:
            self.version += 1
            if index is not None:
                self._revisions[index] = self.version
                self._revisions.move_to_end(index)

    def renew(self, index: int) -> None:
        """Give the mask of an image a new revision; `bump` tells the pages, once all that follows from it is known."""
        with self.lock:
            self._revisions[index] = self.version + 1

    def changes(self, since: int, most: int = 2000) -> list[int] | None:
        """Images whose masks or states changed after a version; None where there are more than `most`."""
        found: list[int] = []
        with self.lock:
            for index in reversed(self._revisions):
                if self._revisions[index] <= since:
                    return found
                found.append(index)
                if len(found) > most:
                    return None
        return found

    def want_fit(self) -> None:
        """The examples have changed."""
        with self.lock:
            self.wanted += 1
        self.bump()

    # What a task says, or a person

    def set_facts(self, index: int, facts: Facts) -> None:
        """Take what the newest task says of an image, unless somebody decided on it."""
        with self.lock:
            if self.is_open(index):
                self.facts[index] = facts
                self.bump(index)

    def decide(self, index: int, mask: NDArray[np.uint8]) -> None:
        """Take a mask that a person drew or accepted."""
        counts = np.bincount(mask.ravel(), minlength=len(self.classes) + 1)[1:]
        areas = {name: float(count / mask.size) for name, count in zip(self.names, counts, strict=False)}
        self.facts[index] = Facts({name: float(area > 0) for name, area in areas.items()}, areas, 0.0)

    def forget_predictions(self) -> None:
        """Nothing is known any more of images that nobody worked on."""
        with self.lock:
            for index in [index for index in self.facts if self.is_open(index)]:
                del self.facts[index]
                self.bump(index)

    def rename(self, names: dict[str, str]) -> None:
        """Classes got other names."""
        with self.lock:
            self.facts = {index: facts.renamed(names) for index, facts in self.facts.items()}

    def fail(self, index: int, reason: str) -> None:
        """An image that cannot be read."""
        with self.lock:
            one = self.images.inputs[index]
            self.failures[index] = reason.replace(str(one.path), one.name)
            self.bump(index)

    def _take_records(self) -> None:
        """Show what a run has found."""
        for name, record in self.records.items():
            index = self.images.indices.get(name)
            if index is None:
                continue
            if record["status"] == FAILED:
                self.failures[index] = record.get("reason", "failed")
                continue
            facts, (height, width) = record["classes"], record["size_hw"]
            self.facts[index] = Facts(
                {label: about["present"] for label, about in facts.items()},
                {label: about["pixels"] / (height * width) for label, about in facts.items()},
                record["uncertainty"],
            )
