"""What an output folder says of its run: records, settings, and the figures made of them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from kshot.io.manifest import STATUSES, ClassFacts, Record, read_manifest, read_settings
from kshot.report.rendering import hex_colour


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
    components: int
    """Connected components of its masks, over all images."""
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
    def components(self) -> int:
        """Connected components over all masks."""
        return sum(line.components for line in self.figures)

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
            sum(about.get("regions", 0) for _, about in shown),
            median(about.get("score", 0.0) for _, about in shown) if shown else None,
            median(areas) if areas else None,
        )


def read_run(out: Path) -> Run:
    """Read an output folder. Raises `SettingError` when there is no manifest in it."""
    return Run(out, read_manifest(out), read_settings(out))


def facts_of(record: Record) -> dict[str, ClassFacts]:
    """What was found of each class; empty for a failed image."""
    return record.get("classes", {})
