"""The run's own files while people work: masks/, manifest.jsonl, settings.json and task.kshot of the newest task."""

import contextlib
import logging
from typing import Any

from kshot.annotations.model import Export
from kshot.annotations.statistics import MASKS
from kshot.batch.run import settings_of_run
from kshot.errors import KshotError, OutputError
from kshot.formats.base import load_format
from kshot.io.manifest import FAILED, Record
from kshot.serve.predictions import Fit
from kshot.serve.run_writer import TASK, RunWriter
from kshot.serve.workspace import Workspace
from kshot.types import Thresholds

log = logging.getLogger(__name__)


class Results:
    """Used by one thread. images_root: the folder that names are relative to, and command: for settings.json."""

    def __init__(self, workspace: Workspace, writer: RunWriter, images_root: str, command: str):
        self.workspace, self.writer, self.images_root, self.command = workspace, writer, images_root, command
        self.written: set[int] = set()
        """Images whose mask on the disk is the newest."""
        self._begun: Fit | None = None
        self._settings: dict[str, Any] = {}

    def write(self, fit: Fit, index: int) -> None:
        """Write the mask of an image that is scored. Raises `OutputError`; then it is to be written again."""
        if self._begun is not fit:
            self._begin(fit)
        workspace, folder = self.workspace, self.workspace.folder
        seen = folder.labels.get(index)
        try:
            if seen is not None and seen.marks:
                workspace.record_decided(index)
            elif seen is None or seen.accepted is None:
                one, sha256 = workspace.images.inputs[index], workspace.images.sha256(index)
                prediction = workspace.predictions.prediction(fit, index)
                with folder.lock:  # what is accepted meanwhile is not replaced
                    if folder.labels.get(index) is seen:
                        folder.records[one.name] = self.writer.write(one.name, one.stem, sha256, prediction)
        except OutputError:
            raise
        except KshotError as error:
            folder.fail(index, str(error))
        self.written.add(index)

    def forget(self) -> None:
        """There is no task any more: only what is decided stays."""
        if self._begun is not None:
            self._restart_manifest()
        self._begun = None

    def close(self) -> None:
        """Put the manifest in order: a line an image."""
        if self._begun is not None:
            with contextlib.suppress(OutputError):
                self.writer.close(self.workspace.folder.records.values())

    def _begin(self, fit: Fit) -> None:
        fit.task.save(self.writer.out / TASK)
        segmenter = self.workspace.predictions.segmenter
        settings = settings_of_run(segmenter, fit.task, {MASKS: load_format(MASKS)}, Export(), Thresholds())
        settings |= {"classes": list(fit.classes), "images": self.images_root, "tiling": None, "command": self.command}
        self._settings = settings
        self._restart_manifest()
        self._begun = fit

    def _restart_manifest(self) -> None:
        """Keep the lines of what is decided or failed; predictions are written again one by one."""
        folder = self.workspace.folder
        failed: list[Record] = [
            {"input": self.workspace.images.names[index], "status": FAILED, "reason": reason}
            for index, reason in folder.failures.items()
        ]
        folder.records = {record["input"]: record for record in failed}
        self.writer.begin(self._settings, failed)
        for index in [index for index, one in sorted(folder.labels.items()) if one.accepted is not None]:
            self.workspace.record_decided(index)
