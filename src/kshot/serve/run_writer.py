"""What the page writes into its output folder: the very files of `kshot label`, and what was drawn.

masks/, manifest.jsonl and settings.json hold what the newest task predicts, with accepted masks in their places;
accepted/ holds what a person accepted; task.kshot the task; page.jsonl and page/ what is drawn and not yet accepted.
"""

import contextlib
import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.statistics import MASKS, record_of
from kshot.batch.protection import check_replaced
from kshot.batch.run_folder import RunFolder
from kshot.errors import OutputError
from kshot.formats.png import save_labels
from kshot.io.atomic import atomic_path, write_text
from kshot.io.jsonl import LineWriter, read_lines, write_lines
from kshot.io.manifest import MANIFEST, SETTINGS, Record, write_records
from kshot.io.names import below
from kshot.types import Prediction

ACCEPTED, TASK, DRAWN, DRAWN_FOLDER = "accepted", "task.kshot", "page.jsonl", "page"


class RunWriter:
    """One server's hold on an output folder; another run or server gets an `OutputError`.

    keep: files and folders that are read, and never replaced. Raises `SettingError` where files lie in the way.
    """

    def __init__(self, out: Path, keep: Iterable[Path]):
        self.out = out
        if not (out / DRAWN).is_file():
            check_replaced(out, {"masks", ACCEPTED, TASK, DRAWN, DRAWN_FOLDER}, keep, overwrite=False)
        self._hold = RunFolder(out)
        self._lock = threading.RLock()
        self._manifest: LineWriter | None = None
        self._drawn: LineWriter | None = None

    def __enter__(self) -> "RunWriter":
        self._hold.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.__exit__()

    def begin(self, settings: Mapping[str, Any], records: Iterable[Record]) -> None:
        """Start the results of a task anew, with the records of images that are decided. Raises `OutputError`."""
        with self._lock:
            # The manifest first: a kill in between must not leave records beside the settings of another task.
            write_records(self.out / MANIFEST, records)
            write_text(self.out / SETTINGS, json.dumps(settings, indent=2) + "\n")
            self._manifest = LineWriter(self.out / MANIFEST)

    def write(self, name: str, stem: str, sha256: str, prediction: Prediction) -> Record:
        """Write the mask of an image and its line of the manifest; of several lines the last counts."""
        path = f"masks/{stem}.png"
        save_labels(prediction.mask, below(self.out, self.out / path))
        record: Record = {"input": name, "status": "failed", "sha256": sha256}
        record |= record_of(prediction, {MASKS: path})
        self.append(record)
        return record

    def append(self, record: Record) -> None:
        """Add a line to the manifest, once it is begun."""
        with self._lock:
            if self._manifest is not None:
                self._manifest.append(record)

    def close(self, records: Iterable[Record]) -> None:
        """Put the manifest in order: a line an image."""
        with self._lock:
            if self._manifest is not None:
                write_records(self.out / MANIFEST, records)

    def accept(self, stem: str, mask: bytes | None) -> None:
        """Write the accepted mask of an image, or remove it. Raises `OutputError`; then the old one is still there."""
        path = below(self.out, self.out / ACCEPTED / f"{stem}.png")
        if mask is None:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{path}: cannot be removed ({error.strerror or error})") from error
            return
        _write_bytes(path, mask)

    def accepted_stems(self) -> set[str]:
        """Of the images that have an accepted mask."""
        folder = self.out / ACCEPTED
        return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.png")}

    def accepted(self, stem: str) -> bytes | None:
        """The accepted mask of an image."""
        with contextlib.suppress(OSError):
            return (self.out / ACCEPTED / f"{stem}.png").read_bytes()
        return None

    def draw(self, line: Mapping[str, Any]) -> None:
        """Keep what is drawn on an image, or the classes."""
        with self._lock:
            if self._drawn is None:
                self._drawn = LineWriter(self.out / DRAWN, compact=True)
            self._drawn.append(line)

    def drawn(self) -> list[dict[str, Any]]:
        """What was kept, the last line of each image; the file is made short again."""
        lines = read_lines(self.out / DRAWN)
        last = {line.get("input", ""): line for line in lines}
        if len(last) < len(lines):
            write_lines(self.out / DRAWN, last.values())
        return list(last.values())

    def keep_base(self, stem: str, answer: bytes) -> None:
        """Keep the mask below what is drawn."""
        _write_bytes(below(self.out, self.out / DRAWN_FOLDER / f"{stem}.png"), answer)

    def base(self, stem: str) -> bytes | None:
        """The mask below what was drawn."""
        with contextlib.suppress(OSError):
            return (self.out / DRAWN_FOLDER / f"{stem}.png").read_bytes()
        return None


def decided(mask: NDArray[np.uint8], classes: tuple[str, ...]) -> Prediction:
    """The prediction of a mask that a person decided on: certain everywhere."""
    scores = np.stack([mask == label for label in range(len(classes) + 1)]).astype(np.float32)
    present = {name: float(scores[label].any()) for label, name in enumerate(classes, 1)}
    return Prediction(mask, scores, present, classes)


def _write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as beside:
        beside.write_bytes(data)
