"""What more shots do to the images of a run that were doubtful."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from kshot.batch.folder import read_manifest
from kshot.errors import KshotError
from kshot.methods.base import Task
from kshot.segmenter import Segmenter


@dataclass(frozen=True)
class Effect:
    """Mean uncertainty, 0..1, of the same images before and after; images: how many."""

    images: int
    before: float
    after: float


def effect(
    segmenter: Segmenter, task: Task, run: Path, root: Path, leave_out: Collection[Path] = (), most: int = 20
) -> Effect | None:
    """The uncertainty of the `most` most doubtful images of a run, in its manifest and with a new task.

    root: where the images are. leave_out: resolved paths of images that became supports: of those it is no news that
    they are sure now. None when no image is left. Raises `SettingError` when there is no manifest.
    """
    records = [r for r in read_manifest(run) if r["status"] != "failed"]
    pairs: list[tuple[float, float]] = []
    for record in sorted(records, key=lambda r: (-r["uncertainty"], r["input"])):
        path = root / record["input"]
        if len(pairs) == most:
            break
        if path.is_file() and path.resolve() not in leave_out:
            try:
                pairs.append((record["uncertainty"], segmenter.predict(task, path).uncertainty))
            except KshotError:  # changed since the run; a figure about the others is still one
                continue
    if not pairs:
        return None
    return Effect(len(pairs), mean(before for before, _ in pairs), mean(after for _, after in pairs))
