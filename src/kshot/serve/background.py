"""What goes on beside the requests: fit the newest examples, score what is seen first, then all; write the masks.

One thread does one thing after another, and looks before each whether it is still wanted. While somebody draws it waits
a moment. It has the priority of the others: on a busy machine they would wait for an interpreter lock that it holds.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from typing import Any

from kshot.annotations.model import Export
from kshot.annotations.statistics import MASKS
from kshot.batch.run import settings_of_run
from kshot.errors import EmptyMaskError, InputError, KshotError, OutputError
from kshot.formats.base import load_format
from kshot.io.manifest import FAILED, Record
from kshot.serve.history import Labels
from kshot.serve.predictions import Fit
from kshot.serve.run_writer import TASK, RunWriter
from kshot.serve.workspace import Workspace
from kshot.types import Thresholds

log = logging.getLogger(__name__)
_QUIET_SECONDS = 0.25


class Background:
    """The thread of a workspace. images_root: the folder that names are relative to, for settings.json."""

    def __init__(self, workspace: Workspace, images_root: str, command: str):
        self.workspace, self.images_root, self.command = workspace, images_root, command
        self.fitting = False
        self.seen: list[int] = []
        """Images that some page shows, the open one first."""
        self.encoded: set[int] = set()
        self.scored: set[int] = set()
        self.written: set[int] = set()
        self._queue: deque[int] = deque(range(len(workspace.images)))
        self._fitted = self._prepared = -1
        self._fit: Fit | None = None
        self._begun: Fit | None = None
        self._settings: dict[str, Any] = {}
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kshot-background", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being done; put the manifest in order."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        writer = self.workspace.writer
        if writer is not None and self._begun is not None:
            with contextlib.suppress(OutputError):
                writer.close(self.workspace.records.values())

    def look(self, indices: list[int]) -> None:
        """Which images a page shows now."""
        self.seen = indices
        self._wake.set()

    @property
    def left(self) -> int:
        """Images that the newest task has not scored, or that are not encoded yet."""
        workspace = self.workspace
        done = self.scored if self._fit is not None else self.encoded
        return max(0, len(workspace.images) - len(done)) + len(workspace.reopened)

    @property
    def idle(self) -> bool:
        """Whether all is done."""
        waits = self.workspace.live and self._fitted != self.workspace.wanted
        return not (self.fitting or waits or self.left or self._to_write())

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                busy = self._step()
            except Exception as error:  # the page lives on, and says so
                log.exception("in the background")
                self.workspace.problem = f"unexpected {type(error).__name__}: {error}"
                self.workspace.bump()
                busy = False
            if not busy:
                self._wake.wait(0.1)

    def _step(self) -> bool:
        """Do the most urgent thing; false where there is none."""
        workspace = self.workspace
        self._prepare()
        quiet = time.monotonic() - workspace.touched
        if quiet < _QUIET_SECONDS:  # strokes come in bursts, and a fit would slow down the next one's answer
            self._wake.wait(_QUIET_SECONDS - quiet)
            return True
        if workspace.live and self._fitted != workspace.wanted:
            self._refit(workspace.wanted)
            return True
        self._take_reopened()
        fit = self._fit
        index = self._next(self.scored if fit else self.encoded)
        if index is not None:
            self._score(fit, index)
            return True
        return fit is not None and workspace.writer is not None and self._write_one(fit)

    def _prepare(self) -> None:
        """Make the open image ready to be drawn on."""
        if self.seen and self.seen[0] != self._prepared and self.seen[0] not in self.workspace.failures:
            self._prepared = self.seen[0]
            with contextlib.suppress(KshotError):  # said when the image is done
                self.workspace.opened(self._prepared)

    def _refit(self, wanted: int) -> None:
        workspace = self.workspace
        self.fitting = True
        workspace.bump()
        try:
            supports, key = workspace.supports()
            if any(bool(support.masks.any()) for support in supports):
                fit = workspace.predictions.fit(supports, workspace.names, key)
                workspace.problem = ""
                if fit is not self._fit:
                    self._fit = fit
                    self._order_anew()
            else:
                self._forget()
        except (EmptyMaskError, InputError) as error:
            workspace.problem = str(error)
        finally:
            self._fitted, self.fitting = wanted, False
            workspace.bump()

    def _forget(self) -> None:
        """No example is left: what the others' masks were learned from is gone, and so are they."""
        workspace, writer = self.workspace, self.workspace.writer
        workspace.predictions.fit_now = self._fit = None
        workspace.forget_predictions()
        if writer is not None and self._begun is not None:
            self._restart_manifest(writer)
        self._begun = None

    def _order_anew(self) -> None:
        """All images wait for the newest task, the doubtful ones first."""
        workspace = self.workspace
        facts, labels = workspace.facts, workspace.labels
        order = sorted(range(len(workspace.images)), key=lambda i: -facts[i].uncertainty if i in facts else -2.0)
        done = {i for i, one in list(labels.items()) if one.accepted is not None or one.marks} | set(workspace.failures)
        self.scored = done
        self.written = {i for i in done if workspace.labels_of(i).accepted is not None or i in workspace.failures}
        self._queue = deque(order)

    def _take_reopened(self) -> None:
        workspace = self.workspace
        while workspace.reopened:
            index = workspace.reopened.pop()
            self.written.discard(index)
            if workspace.is_open(index):
                self.scored.discard(index)
                self._queue.appendleft(index)

    def _next(self, done: set[int]) -> int | None:
        for index in self.seen:
            if index not in done and index < len(self.workspace.images):
                return index
        while self._queue:
            index = self._queue.popleft()
            if index not in done:
                return index
        return None

    def _score(self, fit: Fit | None, index: int) -> None:
        """Encode an image, and score it where there is a task."""
        workspace = self.workspace
        try:
            if fit is None:
                workspace.images.features(index)
            else:
                workspace.set_facts(fit, index, workspace.predictions.score(fit, index))
        except (KshotError, OSError) as error:
            workspace.fail(index, str(error))
            self.written.add(index)
        except Exception as error:  # one image that nobody foresaw costs itself alone
            log.exception("%s: unexpected", workspace.images.names[index])
            workspace.fail(index, f"unexpected {type(error).__name__}: {error}")
            self.written.add(index)
        new = index not in self.encoded
        self.encoded.add(index)
        if fit is not None:
            self.scored.add(index)
        if new:
            workspace.bump()

    def _to_write(self) -> int:
        return len(self.scored - self.written) if self._fit is not None and self.workspace.writer else 0

    def _write_one(self, fit: Fit) -> bool:
        """Write the mask of one image that is scored."""
        workspace, writer = self.workspace, self.workspace.writer
        if writer is None:
            return False
        try:
            if self._begun is not fit:
                self._begin(fit)
            index = next(iter(self.scored - self.written), None)
            if index is None:
                return False
            kept_labels = workspace.labels.get(index)
            labels = kept_labels or Labels()
            if labels.marks:
                workspace.record_decided(index)
            elif labels.accepted is None:
                one = workspace.images.inputs[index]
                prediction = workspace.predictions.prediction(fit, index)
                sha256 = workspace.images.sha256(index)
                with workspace.lock:  # what is accepted meanwhile is not replaced
                    if workspace.labels.get(index) is kept_labels:
                        workspace.records[one.name] = writer.write(one.name, one.stem, sha256, prediction)
            self.written.add(index)
        except OutputError as error:
            workspace.problem = f"{error}; what is accepted is kept, and predictions are written again later"
            workspace.bump()
            self._wake.wait(5)
        except KshotError as error:
            self.written.add(index or 0)
            workspace.fail(index or 0, str(error))
        if not self._to_write():
            workspace.bump()
        return True

    def _begin(self, fit: Fit) -> None:
        workspace, writer = self.workspace, self.workspace.writer
        if writer is None:
            return
        fit.task.save(writer.out / TASK)
        settings = settings_of_run(
            workspace.predictions.segmenter, fit.task, {MASKS: load_format(MASKS)}, Export(), Thresholds()
        )
        settings |= {"classes": list(fit.classes), "images": self.images_root, "tiling": None, "command": self.command}
        self._settings = settings
        self._restart_manifest(writer)
        self._begun = fit

    def _restart_manifest(self, writer: RunWriter) -> None:
        """Keep the lines of what is decided or failed; predictions are written again one by one."""
        workspace = self.workspace
        failed: list[Record] = [
            {"input": workspace.images.names[index], "status": FAILED, "reason": reason}
            for index, reason in workspace.failures.items()
        ]
        workspace.records = {record["input"]: record for record in failed}
        writer.begin(self._settings, failed)
        for index in [index for index, one in sorted(workspace.labels.items()) if one.accepted is not None]:
            workspace.record_decided(index)
