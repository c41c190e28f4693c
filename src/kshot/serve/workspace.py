"""What people do to the labels of a folder; each step is on the disk before it is answered.

Steps come from the windows of browsers, each with a session of its own, and can be taken back there.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from kshot.errors import KshotError, SettingError
from kshot.formats.png import palette
from kshot.io.images import read_mask
from kshot.io.manifest import Record
from kshot.methods.base import Support
from kshot.serve.answers import EVEN, Answer
from kshot.serve.folder_state import FolderState
from kshot.serve.history import Change, History, Labels, NothingToUndoError
from kshot.serve.images import ServedImages
from kshot.serve.marks import MAX_MARKS, Mark, check
from kshot.serve.predictions import Predictions
from kshot.serve.run_writer import RunWriter, decided
from kshot.serve.shown_masks import ShownMasks

log = logging.getLogger(__name__)
_MARKS = TypeAdapter(tuple[Mark, ...])


class ReadOnlyError(SettingError):
    """The page only shows results."""


class Workspace:
    """The steps, over what is known (`folder`) and shown (`masks`). Threads may share it.

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
        self.images, self.predictions, self.writer, self.out = images, predictions, writer, out
        self.base_supports = tuple(base_supports)
        self.folder = FolderState(images, classes, records, live=live)
        self.masks = ShownMasks(self.folder, predictions, out)
        self.history = History()
        if writer is not None:
            self._take_drawn(writer)

    def mark(self, session: str, index: int, mark: Mark) -> Answer:
        """Draw on an image; returns its mask. Raises `MaskError`, `ReadOnlyError` and `InputError`s of reading."""
        with self.masks.lock_of(index):
            self.check_writable()
            labels, opened = self.folder.labels_of(index), self.masks.opened(index)
            check(mark, opened.features.frame.size_hw, self.folder.names, self.images.names[index])
            if len(labels.marks) >= MAX_MARKS:
                raise SettingError(f"{MAX_MARKS} marks on one image; accept its mask, and draw on from there")
            base = labels.base if labels.marks else self._png_of_base(index)
            after = Labels((*labels.marks, mark), base, labels.accepted, support=True)
            self._change(session, index, labels, after)
            answer = self.masks.answer(index)
            self.folder.touched = time.monotonic()  # the browser has yet to show it
            return answer

    def accept(self, session: str, index: int, least: int = EVEN, revision: int | None = None) -> Labels:
        """Decide for the mask that is shown where it is at least so certain. Raises `StaleError` and `OutputError`.

        revision: of the mask that was looked at.
        """
        with self.masks.lock_of(index):
            self.check_writable()
            labels, answer = self.folder.labels_of(index), self.masks.seen(index, revision)
            if labels.accepted is not None and not labels.marks:
                return labels
            mask = answer.resized(self.masks.size_of(index)).mask(least)
            return self._accept(session, index, labels, mask, support=labels.support)

    def reject(self, session: str, index: int) -> Labels:
        """Decide that the image shows none of the classes; it becomes an example of that."""
        with self.masks.lock_of(index):
            empty = np.zeros(self.masks.size_of(index), np.uint8)
            return self._accept(session, index, self.folder.labels_of(index), empty, support=True)

    def accept_mask(self, session: str, index: int, mask: NDArray[np.uint8]) -> Labels:
        """Decide for a mask (h, w) that was made elsewhere; it becomes an example."""
        with self.masks.lock_of(index):
            return self._accept(session, index, self.folder.labels_of(index), mask, support=True)

    def set_support(self, session: str, index: int, support: bool, least: int = EVEN) -> Labels:
        """Whether the image is an example; one that was neither drawn on nor accepted is accepted with it."""
        with self.masks.lock_of(index):
            self.check_writable()
            labels = self.folder.labels_of(index)
            if support and not labels.marks and labels.accepted is None:
                mask = self.masks.answer(index).resized(self.masks.size_of(index)).mask(least)
                return self._accept(session, index, labels, mask, support=True)
            if labels.support == support:
                return labels
            after = Labels(labels.marks, labels.base, labels.accepted, support)
            return self._change(session, index, labels, after)

    def clear(self, session: str, index: int) -> Labels:
        """Take back what is drawn; where nothing is drawn, that the image was accepted."""
        with self.masks.lock_of(index):
            self.check_writable()
            labels = self.folder.labels_of(index)
            if not labels.marks and labels.accepted is None:
                return labels
            kept = labels.accepted if labels.marks else None
            after = Labels(accepted=kept, support=labels.support and kept is not None)
            return self._change(session, index, labels, after)

    def step(self, session: str, *, redo: bool = False) -> int:
        """Undo or redo the last step of a window; returns the image. Raises `NothingToUndoError`."""
        lock = self.folder.lock
        with lock:
            change = self.history.last(session, redo=redo)
        with self.masks.lock_of(change.index):
            before, after = (change.before, change.after) if redo else (change.after, change.before)
            if self.folder.labels_of(change.index) is not before:
                with lock:
                    self.history.forget(session, redo=redo)
                name = self.images.names[change.index]
                raise NothingToUndoError(f"{name} was changed in another window since; that step is left as it is")
            self._put(change.index, before, after)
            with lock:
                self.history.moved(session, redo=redo)
        return change.index

    def add_class(self, name: str, colour: str | None = None) -> int:
        """Name a new class; returns its place. Raises `SupportError`."""
        with self.folder.lock:
            self.check_writable()
            place = self.folder.classes.add(name, colour)
            self._keep_classes()
        return place

    def edit_class(self, place: int, name: str | None = None, colour: str | None = None) -> None:
        """Rename a class or give it another colour. Raises `SupportError`."""
        with self.folder.lock:
            self.check_writable()
            renamed = self.folder.classes.edit(place, name, colour)
            self._keep_classes()
            if renamed:
                self.folder.rename(renamed)
                self.folder.want_fit()

    def set_live(self, live: bool) -> None:
        """Whether the other images follow what is drawn."""
        self.check_writable()
        self.folder.live = live
        self.folder.want_fit()

    def check_writable(self) -> RunWriter:
        """What writes into the folder. Raises `ReadOnlyError`."""
        if self.writer is None:
            raise ReadOnlyError("this page only shows results (--read-only)")
        return self.writer

    # What the background asks

    def supports(self) -> tuple[list[Support], tuple[int, ...]]:
        """The examples, encoded, and a key that is the same for the same ones. Raises `InputError`s, also for a mask
        that is too small."""
        folder = self.folder
        with folder.lock:
            chosen = [(index, labels) for index, labels in sorted(folder.labels.items()) if labels.is_example]
            names = folder.names
        given = [support.with_ways(len(names)) for support in self.base_supports]
        drawn = [self.masks.support(index, labels, names) for index, labels in chosen]
        return given + drawn, (hash(names), *(labels.number for _, labels in chosen))

    def record_decided(self, index: int) -> Record:
        """Write the mask that is drawn or accepted among the run's masks; returns its record."""
        labels, one = self.folder.labels_of(index), self.images.inputs[index]
        if labels.accepted is None or labels.marks:
            mask = self.masks.answer(index).resized(self.masks.size_of(index)).mask()
        else:
            mask = read_mask(labels.accepted, drawn=False)
        writer, sha256 = self.check_writable(), self.images.sha256(index)
        record = writer.write(one.name, one.stem, sha256, decided(mask, self.folder.names))
        self.folder.records[one.name] = record
        return record

    # How it is kept

    def _accept(self, session: str, index: int, labels: Labels, mask: NDArray[np.uint8], *, support: bool) -> Labels:
        return self._change(session, index, labels, Labels(accepted=_index_png(mask), support=support))

    def _change(self, session: str, index: int, before: Labels, after: Labels) -> Labels:
        self._put(index, before, after)
        with self.folder.lock:
            self.history.add(session, Change(index, before, after))
        return after

    def _put(self, index: int, before: Labels, after: Labels) -> None:
        """Make a state the present one, on the disk first. Raises `OutputError`, and changes nothing then."""
        folder, writer = self.folder, self.check_writable()
        stem, name = self.images.inputs[index].stem, self.images.names[index]
        folder.touched = time.monotonic()
        if after.accepted is not before.accepted:
            writer.accept(stem, after.accepted)
        if after.marks and after.base is not before.base:
            writer.keep_base(stem, after.base)
        writer.draw({"input": name, "support": after.support, "marks": [mark.model_dump() for mark in after.marks]})
        with folder.lock:
            folder.labels[index] = after
            folder.failures.pop(index, None)
            folder.renew(index)
        kept = after.accepted if not after.marks else None
        if kept:
            folder.decide(index, read_mask(kept, drawn=False))
            self._record(index)
        elif after.marks:
            folder.decide(index, self.masks.answer(index).mask())
        else:
            folder.facts.pop(index, None)
        if not kept:
            folder.records.pop(name, None)
            folder.reopened.add(index)
        folder.bump(index)
        if before.is_example or after.is_example:
            folder.want_fit()

    def _record(self, index: int) -> None:
        try:
            self.record_decided(index)
        except KshotError as error:  # the accepted mask itself is written
            self.folder.problem = str(error)

    def _png_of_base(self, index: int) -> bytes:
        base = self.masks.answer(index)
        return base.png if base.labels.any() else b""

    def _keep_classes(self) -> None:
        self.check_writable().draw({"classes": [asdict(one) for one in self.folder.classes]})
        self.folder.bump()

    def _take_drawn(self, writer: RunWriter) -> None:
        """Go on with what was drawn and accepted before."""
        drawn = writer.drawn()
        for line in drawn:
            if "classes" in line:
                self.folder.classes.restore(line["classes"])
        lines = {line["input"]: line for line in drawn if isinstance(line.get("input"), str)}
        stems = writer.accepted_stems()
        for index, one in enumerate(self.images.inputs):
            line = lines.get(one.name, {})
            if not line and one.stem not in stems:
                continue
            accepted = writer.accepted(one.stem)
            try:
                marks = _MARKS.validate_python(tuple(line.get("marks", ())))
            except ValidationError:
                log.warning("%s: what was drawn on it cannot be read, and is left out", one.name)
                marks = ()
            base = (writer.base(one.stem) or b"") if marks else b""
            support = bool(line.get("support", accepted is not None))
            self.folder.labels[index] = Labels(marks, base, accepted, support)
            if accepted is not None and not marks:
                self.folder.decide(index, read_mask(accepted, drawn=False))


def _index_png(mask: NDArray[np.uint8]) -> bytes:
    """The bytes of a palette PNG."""
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette(palette().tobytes())
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
