"""What goes on beside the requests: fit the newest examples, score what is seen first, then all; write the masks.

One thread looks, before each step, what is most urgent. It scores several images at once, each on a thread of its own:
small tensors gain little from many threads, and lose much where other work keeps the cores busy. While somebody draws
it waits a moment. It has the priority of the others: on a busy machine they would wait for an interpreter lock that it
holds.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from kshot.errors import EmptyMaskError, InputError, KshotError, OutputError
from kshot.serve.predictions import Fit
from kshot.serve.results import Results
from kshot.serve.workspace import Workspace

log = logging.getLogger(__name__)
_QUIET_SECONDS = 0.4


class Background:
    """The thread of a workspace. results: where masks are written. workers: images that are scored at once."""

    def __init__(self, workspace: Workspace, results: Results | None, workers: int = 1):
        self.workspace, self.results, self.workers = workspace, results, workers
        self.fitting = False
        self.seen: list[int] = []
        """Images that some page shows, the open one first."""
        self.encoded: set[int] = set()
        self.scored: set[int] = set()
        self._queue: deque[int] = deque(range(len(workspace.images)))
        self._fitted = self._prepared = -1
        self._fit: Fit | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._pool = ThreadPoolExecutor(workers, "kshot-score")
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
        self._pool.shutdown()
        if self.results is not None:
            self.results.close()

    def look(self, indices: list[int]) -> None:
        """Which images a page shows now."""
        self.seen = indices
        self._wake.set()

    @property
    def left(self) -> int:
        """Images that the newest task has not scored, or that are not encoded yet."""
        workspace = self.workspace
        done = self.scored if self._fit is not None else self.encoded
        return max(0, len(workspace.images) - len(done)) + len(workspace.folder.reopened)

    @property
    def idle(self) -> bool:
        """Whether all is done."""
        folder = self.workspace.folder
        waits = folder.live and self._fitted != folder.wanted
        return not (self.fitting or waits or self.left or self._to_write())

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                busy = self._step()
            except Exception as error:  # the page lives on, and says so
                log.exception("in the background")
                self._tell(f"unexpected {type(error).__name__}: {error}")
                busy = False
            if not busy:
                self._wake.wait(0.1)

    def _step(self) -> bool:
        """Do the most urgent thing; false where there is none."""
        folder = self.workspace.folder
        self._prepare()
        quiet = time.monotonic() - folder.touched
        if quiet < _QUIET_SECONDS:  # strokes come in bursts, and a fit would slow down the next one's answer
            self._wake.wait(_QUIET_SECONDS - quiet)
            return True
        if folder.live and self._fitted != folder.wanted:
            self._refit(folder.wanted)
            return True
        self._take_reopened()
        fit = self._fit
        chosen = self._next(self.scored if fit else self.encoded)
        if chosen:
            list(self._pool.map(lambda index: self._score(fit, index), chosen))
            return True
        return fit is not None and self._write_one(fit)

    def _prepare(self) -> None:
        """Make the open image ready to be drawn on."""
        workspace = self.workspace
        if self.seen and self.seen[0] != self._prepared and self.seen[0] not in workspace.folder.failures:
            self._prepared = self.seen[0]
            with contextlib.suppress(KshotError):  # said when the image is done
                workspace.masks.opened(self._prepared)

    def _refit(self, wanted: int) -> None:
        workspace = self.workspace
        self.fitting = True
        workspace.folder.bump()
        try:
            supports, key = workspace.supports()
            if any(bool(support.masks.any()) for support in supports):
                fit = workspace.predictions.fit(supports, workspace.folder.names, key)
                workspace.folder.problem = ""
                if fit is not self._fit:
                    self._fit = fit
                    self._order_anew()
            else:
                self._forget()
        except (EmptyMaskError, InputError) as error:
            workspace.folder.problem = str(error)
        finally:
            self._fitted, self.fitting = wanted, False
            workspace.folder.bump()

    def _forget(self) -> None:
        """No example is left: what the others' masks were learned from is gone, and so are they."""
        self.workspace.predictions.fit_now = self._fit = None
        self.workspace.folder.forget_predictions()
        if self.results is not None:
            self.results.forget()

    def _order_anew(self) -> None:
        """All images wait for the newest task, the doubtful ones first."""
        folder = self.workspace.folder
        facts, labels, failed = folder.facts, folder.labels, set(folder.failures)
        order = sorted(range(len(folder.images)), key=lambda i: -facts[i].uncertainty if i in facts else -2.0)
        self.scored = {i for i, one in list(labels.items()) if one.accepted is not None or one.marks} | failed
        if self.results is not None:
            accepted = {i for i in self.scored if folder.labels_of(i).accepted is not None}
            self.results.written = accepted | failed
        self._queue = deque(order)

    def _take_reopened(self) -> None:
        folder = self.workspace.folder
        while folder.reopened:
            index = folder.reopened.pop()
            if self.results is not None:
                self.results.written.discard(index)
            if folder.is_open(index):
                self.scored.discard(index)
                self._queue.appendleft(index)

    def _next(self, done: set[int]) -> list[int]:
        """The most urgent images that are not done, one for each worker."""
        chosen = [index for index in self.seen if index not in done and index < len(self.workspace.images)]
        chosen = list(dict.fromkeys(chosen))[: self.workers]
        while self._queue and len(chosen) < self.workers:
            index = self._queue.popleft()
            if index not in done and index not in chosen:
                chosen.append(index)
        return chosen

    def _score(self, fit: Fit | None, index: int) -> None:
        """Encode an image, and score it where there is a task."""
        workspace, folder = self.workspace, self.workspace.folder
        try:
            if fit is None:
                workspace.images.features(index)
            else:
                facts = workspace.predictions.score(fit, index)
                if fit is workspace.predictions.fit_now:
                    folder.set_facts(index, facts)
        except (KshotError, OSError) as error:
            self._fail(index, str(error))
        except Exception as error:  # one image that nobody foresaw costs itself alone
            log.exception("%s: unexpected", workspace.images.names[index])
            self._fail(index, f"unexpected {type(error).__name__}: {error}")
        new = index not in self.encoded
        self.encoded.add(index)
        if fit is not None:
            self.scored.add(index)
        if new:
            folder.bump()

    def _fail(self, index: int, reason: str) -> None:
        self.workspace.folder.fail(index, reason)
        if self.results is not None:
            self.results.written.add(index)

    def _to_write(self) -> int:
        return len(self.scored - self.results.written) if self._fit is not None and self.results is not None else 0

    def _write_one(self, fit: Fit) -> bool:
        """Write the mask of one image that is scored."""
        if self.results is None:
            return False
        index = next(iter(self.scored - self.results.written), None)
        if index is None:
            return False
        try:
            self.results.write(fit, index)
        except OutputError as error:
            self._tell(f"{error}; what is accepted is kept, and predictions are written again later")
            self._wake.wait(5)
        if not self._to_write():
            self.workspace.folder.bump()
        return True

    def _tell(self, problem: str) -> None:
        self.workspace.folder.problem = problem
        self.workspace.folder.bump()
