"""The labels of a folder while people work on them: what was drawn and accepted, and what follows from it.

Changes come from the windows of browsers, each with a session of its own, and are on the disk before they are answered.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from kshot.errors import KshotError, SettingError, SupportError
from kshot.features.lru import SharedCache
from kshot.formats.overlay import hex_colour_of
from kshot.formats.png import palette
from kshot.io.images import read_mask
from kshot.io.manifest import FAILED, Record
from kshot.methods.base import Support
from kshot.prompts import labelled_support
from kshot.serve.answers import EVEN, Answer
from kshot.serve.history import Change, History, Labels, NothingToUndoError
from kshot.serve.images import SCREEN, THUMBNAIL, ServedImages
from kshot.serve.marks import MAX_MARKS, Mark, check
from kshot.serve.predictions import Facts, Fit, Predictions
from kshot.serve.quick import OpenImage
from kshot.serve.run_writer import RunWriter, decided
from kshot.types import MAX_CLASSES

log = logging.getLogger(__name__)
_MARKS = TypeAdapter(tuple[Mark, ...])
_SEEN = 64  # masks that pages were given
_ANSWER_BYTES, _OPEN_BYTES = 128 * 2**20, 256 * 2**20
DOUBTFUL = 0.5
"""Uncertainty from which an image counts as doubtful."""


class StaleError(SettingError):
    """The mask has changed since the page saw it."""


class ReadOnlyError(SettingError):
    """The page only shows results."""


@dataclass(frozen=True)
class ServedClass:
    """A class as the page shows it."""

    name: str
    colour: str
    """#rrggbb."""


class Workspace:
    """All that the server knows. Threads may share it.

    base_supports: encoded supports that were given, with a mask for each of `classes`. writer: None only shows results.
    records: of a run that is in the folder. live: whether the other images follow what is drawn.
    """

    def __init__(
        self,
        images: ServedImages,
        predictions: Predictions,
        writer: RunWriter | None,
        out: Path,
        *,
        classes: Sequence[str] = (),
        base_supports: Sequence[Support] = (),
        records: Sequence[Record] = (),
        live: bool = True,
    ):
        self.images, self.predictions, self.writer, self.out, self.live = images, predictions, writer, out, live
        self.base_supports = tuple(base_supports)
        self.classes = [ServedClass(name, hex_colour_of(i)) for i, name in enumerate(classes, 1)]
        self.history = History()
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
        self._seen: OrderedDict[tuple[int, int], tuple[Labels | None, Answer]] = OrderedDict()
        self._locks: dict[int, threading.RLock] = {}
        self._answers = SharedCache[Answer](_ANSWER_BYTES, lambda a: 2 * a.labels.nbytes)
        self._opened = SharedCache[OpenImage](_OPEN_BYTES, lambda o: 4 * o.features.features.nbytes + o.view.nbytes)
        self._supports = SharedCache[Support](2**28, lambda support: support.features.features.nbytes)
        self._take_records()
        self._take_drawn()

    # What is shown

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(one.name for one in self.classes)

    def labels_of(self, index: int) -> Labels:
        """What a person has made of an image."""
        return self.labels.get(index, Labels())

    def is_open(self, index: int) -> bool:
        """Whether nobody has drawn on an image or accepted it."""
        labels = self.labels_of(index)
        return labels.accepted is None and not labels.marks

    def revision(self, index: int) -> int:
        """Counts the changes of an image's mask."""
        return self._revisions.get(index, 0)

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

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of an image. Raises `InputError`s of reading it."""
        return self.images.features(index).frame.size_hw

    def answer(self, index: int) -> Answer:
        """The mask of an image at the size of its view. Raises `InputError`s of reading it."""
        labels, fit = self.labels_of(index), self.predictions.fit_now
        key = index, self.revision(index), fit.number if fit else 0
        return self._answers.get(key, lambda: self._answer(index, labels, fit))

    def answer_for_page(self, index: int) -> tuple[Answer, int]:
        """The mask and its revision, which is remembered for a while, so that what was seen can be accepted."""
        with self._of(index):
            revision, labels = self.revision(index), self.labels.get(index)
            answer = self.answer(index)
        with self.lock:
            self._seen[index, revision] = labels, answer
            while len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
        return answer, revision

    def small_answer(self, index: int) -> Answer:
        """The same at the size of a thumbnail; a prediction is not refined for it."""
        fit, view = self.predictions.fit_now, self.images.view(index, THUMBNAIL)
        size_hw = view.shape[0], view.shape[1]
        if self.is_open(index) and fit and self.live and index in self.facts:
            return self.predictions.small(fit, index, size_hw)
        return self.answer(index).resized(size_hw)

    def opened(self, index: int) -> OpenImage:
        """An image that somebody works on, with what makes answers quick. Raises `InputError`s."""

        def make() -> OpenImage:
            found = OpenImage(self.images.features(index), self.images.view(index, SCREEN))
            _ = found.graph
            return found

        return self._opened.get(index, make)

    # What people do

    def mark(self, session: str, index: int, mark: Mark) -> Answer:
        """Draw on an image; returns its mask. Raises `MaskError`, `ReadOnlyError` and `InputError`s of reading."""
        with self._of(index):
            self.check_writable()
            labels, opened = self.labels_of(index), self.opened(index)
            check(mark, opened.features.frame.size_hw, self.names, self.images.names[index])
            if len(labels.marks) >= MAX_MARKS:
                raise SettingError(f"{MAX_MARKS} marks on one image; accept its mask, and draw on from there")
            base = labels.base if labels.marks else self._png_of_base(index, labels)
            after = Labels((*labels.marks, mark), base, labels.accepted, support=True)
            self._change(session, index, labels, after)
            return self.answer(index)

    def accept(self, session: str, index: int, least: int = EVEN, revision: int | None = None) -> Labels:
        """Decide for the mask that is shown where it is at least so certain. Raises `StaleError` and `OutputError`.

        revision: of the mask that was looked at.
        """
        with self._of(index):
            self.check_writable()
            labels, answer = self.labels_of(index), self._answer_seen(index, revision)
            if labels.accepted is not None and not labels.marks:
                return labels
            mask = answer.resized(self.size_of(index)).mask(least)
            return self._accept(session, index, labels, mask, support=labels.support)

    def reject(self, session: str, index: int) -> Labels:
        """Decide that the image shows none of the classes; it becomes an example of that."""
        with self._of(index):
            empty = np.zeros(self.size_of(index), np.uint8)
            return self._accept(session, index, self.labels_of(index), empty, support=True)

    def accept_mask(self, session: str, index: int, mask: NDArray[np.uint8]) -> Labels:
        """Decide for a mask (h, w) that was made elsewhere; it becomes an example."""
        with self._of(index):
            return self._accept(session, index, self.labels_of(index), mask, support=True)

    def set_support(self, session: str, index: int, support: bool, least: int = EVEN) -> Labels:
        """Whether the image is an example; one that was neither drawn on nor accepted is accepted with it."""
        with self._of(index):
            self.check_writable()
            labels = self.labels_of(index)
            if support and not labels.marks and labels.accepted is None:
                mask = self.answer(index).resized(self.size_of(index)).mask(least)
                return self._accept(session, index, labels, mask, support=True)
            if labels.support == support:
                return labels
            after = Labels(labels.marks, labels.base, labels.accepted, support)
            return self._change(session, index, labels, after)

    def clear(self, session: str, index: int) -> Labels:
        """Take back what is drawn; where nothing is drawn, that the image was accepted."""
        with self._of(index):
            self.check_writable()
            labels = self.labels_of(index)
            if not labels.marks and labels.accepted is None:
                return labels
            kept = labels.accepted if labels.marks else None
            after = Labels(accepted=kept, support=labels.support and kept is not None)
            return self._change(session, index, labels, after)

    def step(self, session: str, *, redo: bool = False) -> int:
        """Undo or redo the last step of a window; returns the image. Raises `NothingToUndoError`."""
        with self.lock:
            change = self.history.last(session, redo=redo)
        with self._of(change.index):
            before, after = (change.before, change.after) if redo else (change.after, change.before)
            if self.labels_of(change.index) is not before:
                with self.lock:
                    self.history.forget(session, redo=redo)
                name = self.images.names[change.index]
                raise NothingToUndoError(f"{name} was changed in another window since; that step is left as it is")
            self._put(change.index, before, after)
            with self.lock:
                self.history.moved(session, redo=redo)
        return change.index

    def add_class(self, name: str, colour: str | None = None) -> int:
        """Name a new class; returns its place. Raises `SupportError`."""
        with self.lock:
            self.check_writable()
            self._check_name(name.strip())
            if len(self.classes) >= MAX_CLASSES:
                raise SupportError(f"{MAX_CLASSES} classes are the most that an index mask holds")
            self.classes.append(ServedClass(name.strip(), colour or hex_colour_of(len(self.classes) + 1)))
            self._keep_classes()
            return len(self.classes) - 1

    def edit_class(self, place: int, name: str | None = None, colour: str | None = None) -> None:
        """Rename a class or give it another colour. Raises `SupportError`."""
        with self.lock:
            self.check_writable()
            if not 0 <= place < len(self.classes):
                raise SupportError(f"there is no class {place}: {len(self.classes)} are named")
            one = self.classes[place]
            if name is not None and name.strip() != one.name:
                self._check_name(name.strip())
            self.classes[place] = ServedClass(name.strip() if name is not None else one.name, colour or one.colour)
            self._keep_classes()
            if name is not None and name.strip() != one.name:
                renamed = {one.name: name.strip()}
                self.facts = {index: _renamed(facts, renamed) for index, facts in self.facts.items()}
                self.want_fit()

    def set_live(self, live: bool) -> None:
        """Whether the other images follow what is drawn."""
        with self.lock:
            self.check_writable()
            self.live = live
        self.want_fit()

    # What the background asks

    def supports(self) -> tuple[list[Support], tuple[int, ...]]:
        """The examples, encoded, and a key that is the same for the same ones. Raises `InputError`s, also for a mask
        that is too small."""
        with self.lock:
            chosen = [(index, labels) for index, labels in sorted(self.labels.items()) if labels.is_example]
            names = self.names
        found = [support.with_ways(len(names)) for support in self.base_supports]
        for index, labels in chosen:
            key = (labels.number, names)
            found.append(self._supports.get(key, lambda i=index, one=labels: self._support(i, one, names)))  # type: ignore[misc]
        return found, (hash(names), *(labels.number for _, labels in chosen))

    def forget_predictions(self) -> None:
        """Nothing is known any more of images that nobody worked on."""
        with self.lock:
            for index in [index for index in self.facts if self.is_open(index)]:
                del self.facts[index]
                self.bump(index)

    def set_facts(self, fit: Fit, index: int, facts: Facts) -> None:
        """Take what a task says of an image, unless it was decided or a newer task is there."""
        with self.lock:
            if fit is self.predictions.fit_now and self.is_open(index):
                self.facts[index] = facts
                self.bump(index)

    def fail(self, index: int, reason: str) -> None:
        """An image that cannot be read."""
        with self.lock:
            one = self.images.inputs[index]
            self.failures[index] = reason.replace(str(one.path), one.name)
            self.bump(index)

    def bump(self, index: int | None = None) -> None:
        """Tell the pages that an image, or something else, has changed."""
        with self.lock:
            self.version += 1
            if index is not None:
                self._revisions[index] = self.version
                self._revisions.move_to_end(index)

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

    # How it is kept

    def _accept(self, session: str, index: int, labels: Labels, mask: NDArray[np.uint8], *, support: bool) -> Labels:
        return self._change(session, index, labels, Labels(accepted=_index_png(mask), support=support))

    def _change(self, session: str, index: int, before: Labels, after: Labels) -> Labels:
        self._put(index, before, after)
        with self.lock:
            self.history.add(session, Change(index, before, after))
        return after

    def _put(self, index: int, before: Labels, after: Labels) -> None:
        """Make a state the present one, on the disk first. Raises `OutputError`, and changes nothing then."""
        writer = self.check_writable()
        stem, name = self.images.inputs[index].stem, self.images.names[index]
        self.touched = time.monotonic()
        if after.accepted is not before.accepted:
            writer.accept(stem, after.accepted)
        if after.marks and after.base is not before.base:
            writer.keep_base(stem, after.base)
        writer.draw({"input": name, "support": after.support, "marks": [mark.model_dump() for mark in after.marks]})
        with self.lock:
            self.labels[index] = after
            self.failures.pop(index, None)
            self._revisions[index] = self.version + 1
        kept = after.accepted if not after.marks else None
        if kept:
            self._decide(index, read_mask(kept, drawn=False))
            self._record(index)
        elif after.marks:
            self._decide(index, self.answer(index).mask())
        else:
            self.facts.pop(index, None)
        if not kept:
            self.records.pop(name, None)
            self.reopened.add(index)
        self.bump(index)
        if before.is_example or after.is_example:
            self.want_fit()

    def _decide(self, index: int, mask: NDArray[np.uint8]) -> None:
        counts = np.bincount(mask.ravel(), minlength=len(self.classes) + 1)[1:]
        areas = {name: float(count / mask.size) for name, count in zip(self.names, counts, strict=False)}
        self.facts[index] = Facts({name: float(area > 0) for name, area in areas.items()}, areas, 0.0)

    def record_decided(self, index: int) -> Record:
        """Write the mask that is drawn or accepted among the run's masks; returns its record."""
        labels, one = self.labels_of(index), self.images.inputs[index]
        if labels.accepted is None or labels.marks:
            mask = self.answer(index).resized(self.size_of(index)).mask()
        else:
            mask = read_mask(labels.accepted, drawn=False)
        writer, sha256 = self.check_writable(), self.images.sha256(index)
        record = writer.write(one.name, one.stem, sha256, decided(mask, self.names))
        self.records[one.name] = record
        return record

    def _record(self, index: int) -> None:
        try:
            self.record_decided(index)
        except KshotError as error:  # the accepted mask itself is written
            self.problem = str(error)

    def _answer(self, index: int, labels: Labels, fit: Fit | None) -> Answer:
        view = self.images.view(index, SCREEN)
        size_hw = view.shape[0], view.shape[1]
        if labels.marks:
            base = Answer.of_png(labels.base) if labels.base else Answer.nothing(size_hw)
            return self.opened(index).answer(labels.marks, base, len(self.classes))
        if labels.accepted is not None:
            return Answer.of_mask(read_mask(labels.accepted, drawn=False)).resized(size_hw)
        if fit is not None and self.live:
            return self.predictions.answer(fit, index, view)
        record = self.records.get(self.images.names[index], {})
        if "mask" in record:
            return Answer.of_mask(read_mask(self.out / record["mask"], drawn=False)).resized(size_hw)
        return Answer.nothing(size_hw)

    def _png_of_base(self, index: int, labels: Labels) -> bytes:
        base = self.answer(index)
        return base.png if base.labels.any() else b""

    def _support(self, index: int, labels: Labels, names: tuple[str, ...]) -> Support:
        features = self.images.features(index)
        if labels.marks:
            mask = self.answer(index).resized(self.size_of(index)).mask()
        else:
            mask = read_mask(labels.accepted or b"", drawn=False)
        wanted = {label: name for label, name in enumerate(names, 1) if (mask == label).any()}
        return labelled_support(mask, wanted, names, features, self.images.names[index])

    def _of(self, index: int) -> threading.RLock:
        with self.lock:
            return self._locks.setdefault(index, threading.RLock())

    def _answer_seen(self, index: int, revision: int | None) -> Answer:
        """The mask that a page was given; predictions may have moved on since. Raises `StaleError`."""
        if revision is None or revision == self.revision(index):
            return self.answer(index)
        seen = self._seen.get((index, revision))
        if seen is None or seen[0] is not self.labels.get(index):
            raise StaleError(f"the mask of {self.images.names[index]} has changed meanwhile; look at it again")
        return seen[1]

    def check_writable(self) -> RunWriter:
        """What writes into the folder. Raises `ReadOnlyError`."""
        if self.writer is None:
            raise ReadOnlyError("this page only shows results (--read-only)")
        return self.writer

    def _check_name(self, name: str) -> None:
        if not name or len(name) > 100 or any(ord(letter) < 32 for letter in name):
            raise SupportError("a class name has 1 to 100 characters, on one line")
        if name in self.names:
            raise SupportError(f"there is a class {name!r} already; choose another name")

    def _keep_classes(self) -> None:
        if self.writer:
            self.writer.draw({"classes": [asdict(one) for one in self.classes]})
        self.bump()

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

    def _take_drawn(self) -> None:
        """Go on with what was drawn and accepted before."""
        if self.writer is None:
            return
        drawn = self.writer.drawn()
        for line in drawn:
            if "classes" in line:
                self.classes = [ServedClass(str(one["name"]), str(one["colour"])) for one in line["classes"]]
        lines = {line["input"]: line for line in drawn if isinstance(line.get("input"), str)}
        for index, one in enumerate(self.images.inputs):
            line, accepted = lines.get(one.name, {}), self.writer.accepted(one.stem)
            if not line and accepted is None:
                continue
            try:
                marks = _MARKS.validate_python(tuple(line.get("marks", ())))
            except ValidationError:
                log.warning("%s: what was drawn on it cannot be read, and is left out", one.name)
                marks = ()
            base = (self.writer.base(one.stem) or b"") if marks else b""
            self.labels[index] = Labels(marks, base, accepted, bool(line.get("support", accepted is not None)))
            if accepted is not None and not marks:
                self._decide(index, read_mask(accepted, drawn=False))


def _renamed(facts: Facts, names: dict[str, str]) -> Facts:
    present = {names.get(name, name): value for name, value in facts.present.items()}
    return Facts(present, {names.get(name, name): value for name, value in facts.areas.items()}, facts.uncertainty)


def _index_png(mask: NDArray[np.uint8]) -> bytes:
    """The bytes of a palette PNG."""
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette(palette().tobytes())
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
