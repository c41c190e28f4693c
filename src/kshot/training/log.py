"""The log of a run: one line of JSON for each step, and TensorBoard's events where its package is installed."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kshot.io.atomic import write_text
from kshot.io.jsonl import LineWriter, read_lines, write_lines

LOG, SETTINGS, EVENTS = "log.jsonl", "training.json", "tensorboard"
TRAIN, VALIDATION, END = "train", "val", "end"  # kinds of lines


class Log:
    """Files in the folder of a run. enabled: False writes nothing, as in all processes but the main one."""

    def __init__(self, out: Path, enabled: bool):
        self.out, self.enabled = out, enabled
        self.file: LineWriter | None = None
        self.events: Any = None
        self.began = time.monotonic()

    def begin(self, settings: dict[str, Any], step: int) -> None:
        """Write the settings and continue after `step`; what a killed run wrote after its checkpoint is dropped."""
        if not self.enabled:
            return
        write_text(self.out / SETTINGS, json.dumps(settings, indent=2) + "\n")
        kept = [line for line in read(self.out) if line["step"] <= step and line["kind"] != END] if step else []
        write_lines(self.out / LOG, kept)
        self.began = time.monotonic() - (kept[-1]["seconds"] if kept else 0)
        self.file = LineWriter(self.out / LOG)
        self.events = _events(self.out / EVENTS, step)

    def step(self, step: int, figures: dict[str, float]) -> None:
        """Write the figures of one step."""
        self._write(step, TRAIN, figures)

    def validation(self, step: int, figures: dict[str, float]) -> None:
        """Write the figures of a validation after a step."""
        self._write(step, VALIDATION, figures)

    def end(self, step: int, why: str) -> None:
        """Write why a run ended; a killed run has no such line."""
        self._write(step, END, {"why": why})

    def close(self) -> None:
        """Close the files."""
        self.file = None
        if self.events is not None:
            self.events.close()

    def _write(self, step: int, kind: str, figures: Mapping[str, float | str]) -> None:
        if self.file is None:
            return
        line = {"step": step, "kind": kind, "seconds": round(time.monotonic() - self.began, 2), **figures}
        self.file.append(line)
        if self.events is not None and kind != END:
            for name, value in figures.items():
                self.events.add_scalar(f"{kind}/{name}", value, step)


def read(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without one that a kill cut off."""
    return read_lines(out / LOG)


def _events(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None without the extra `train`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
