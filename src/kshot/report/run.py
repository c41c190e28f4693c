"""What an output folder says of its run: records, settings, and the figures made of them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.advice import advice_of
from kshot.formats.kshot_run import SavedLabels
from kshot.io.manifest import FAILED, STATUSES, ClassFacts, Record, read_manifest, read_settings
from kshot.report.rendering import hex_colour
from kshot.types import Thresholds


@dataclass(frozen=True)
class ClassFigures:
    """One class over all images of a run."""

    name: str
    colour: str
    """For CSS, as in overlays."""
    images: int
    """How many images show it."""
    image_fraction: float
    """These as a fraction of all images."""
    objects: int
    """Its objects over all images."""
    score: float | None
    """Median of the mean scores of the images that show it; None without any."""
    area: float | None
    """Median fraction of the image's pixels, over the images that show it; None without any."""


@dataclass(frozen=True)
class Run:
    """An output folder as `kshot label`, `predict` or `demo` left it."""

    out: Path
    records: list[Record]
    settings: dict[str, Any]
    labels: Mapping[str, Callable[[], NDArray[np.uint8]]] = field(default_factory=dict)
    """Of images whose masks are others than those in the folder, by their names: labels (h, w)."""
    thresholds: str = ""
    """Which thresholds made them so, for people."""

    @cached_property
    def classes(self) -> list[str]:
        """Class names in the order of their labels; of the settings, or of the records where those are gone."""
        named = self.settings.get("classes")
        if isinstance(named, list) and named:
            return [str(name) for name in named]
        return list(dict.fromkeys(name for record in self.records for name in facts_of(record)))

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many images have each status."""
        return {status: sum(record["status"] == status for record in self.records) for status in STATUSES}

    @cached_property
    def figures(self) -> list[ClassFigures]:
        """A line per class."""
        return [self._figures(index, name) for index, name in enumerate(self.classes, 1)]

    @cached_property
    def images(self) -> Path | None:
        """The folder that the images came from, when the settings name one that is there."""
        named = self.settings.get("images")
        if not isinstance(named, str) or not named:
            return None
        return next((path for path in (Path(named), self.out / named) if path.is_dir()), None)

    @property
    def objects(self) -> int:
        """Objects over all images."""
        return sum(line.objects for line in self.figures)

    @property
    def advice(self) -> str:
        """What to do where the masks of the whole run are doubtful; empty where they are not."""
        known = self.settings.get("presence_threshold")
        return advice_of(self.records, known if isinstance(known, int | float) else 0.5)

    def image_of(self, record: Record) -> Path | None:
        """The image that a record is of, when it is there."""
        path = self.images / record["input"] if self.images else None
        return path if path and path.is_file() else None

    def output_of(self, record: Record, name: str) -> Path | None:
        """What a format wrote for a record, when it is there."""
        path = self.out / record["outputs"][name] if name in record.get("outputs", {}) else None
        return path if path and path.is_file() else None

    def _figures(self, index: int, name: str) -> ClassFigures:
        facts = [(record, facts_of(record).get(name)) for record in self.records]
        shown = [(record, about) for record, about in facts if about and about.get("pixels")]
        areas = [about["pixels"] / (r["size_hw"][0] * r["size_hw"][1]) for r, about in shown if r.get("size_hw")]
        return ClassFigures(
            name,
            hex_colour(index),
            len(shown),
            len(shown) / max(1, len(self.records)),
            sum(about.get("objects", 0) for _, about in shown),
            median(about.get("score", 0.0) for _, about in shown) if shown else None,
            median(areas) if areas else None,
        )


def read_run(out: Path, thresholds: Thresholds | None = None) -> Run:
    """Read an output folder. thresholds: other ones than the run had, decided on what it saved.

    Raises `SettingError` when there is no manifest in it, and for thresholds that need scores which are not there.
    """
    records, settings = read_manifest(out), read_settings(out)
    if thresholds is None or thresholds == Thresholds():
        return Run(out, records, settings)
    saved = SavedLabels(out, settings, records, thresholds)
    labels = {r["input"]: partial(saved.labels_of, r) for r in records if r["status"] != FAILED}
    now = [record if record["status"] == FAILED else saved.record_of(record) for record in records]
    changed = {name: value for name, value in asdict(thresholds).items() if value != getattr(Thresholds, name)}
    return Run(out, now, settings, labels, ", ".join(f"{name} {value}" for name, value in changed.items()))


def facts_of(record: Record) -> dict[str, ClassFacts]:
    """What was found of each class; empty for a failed image."""
    return record.get("classes", {})
