"""What an output folder says of its run: records, settings, and the figures made of them."""

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from kshot.errors import SettingError
from kshot.formats.overlay import colour_of

log = logging.getLogger(__name__)
MANIFEST, SETTINGS = "manifest.jsonl", "settings.json"
STATUSES = ("done", "empty", "failed")
Record = dict[str, Any]


@dataclass(frozen=True)
class ClassFigures:
    """One class over all images. score, area: medians over the images that show it; area is a share of the image."""

    name: str
    colour: str
    images: int
    share: float
    regions: int
    score: float | None
    area: float | None


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
    def pictures(self) -> Path | None:
        """The folder that the images came from, when the settings name one that is there."""
        named = self.settings.get("images")
        if not isinstance(named, str) or not named:
            return None
        return next((path for path in (Path(named), self.out / named) if path.is_dir()), None)

    @property
    def regions(self) -> int:
        """Connected regions over all masks."""
        return sum(line.regions for line in self.figures)

    def picture_of(self, record: Record) -> Path | None:
        """The image that a record speaks of, when it is there."""
        path = self.pictures / record["input"] if self.pictures else None
        return path if path and path.is_file() else None

    def output_of(self, record: Record, name: str) -> Path | None:
        """What a format wrote for a record, when it is there."""
        path = self.out / record["outputs"][name] if name in record.get("outputs", {}) else None
        return path if path and path.is_file() else None

    def _figures(self, index: int, name: str) -> ClassFigures:
        shown = [(r, facts_of(r)[name]) for r in self.records if facts_of(r).get(name, {}).get("pixels")]
        areas = [facts["pixels"] / (r["size_hw"][0] * r["size_hw"][1]) for r, facts in shown if r.get("size_hw")]
        return ClassFigures(
            name,
            hex_colour(index),
            len(shown),
            len(shown) / max(1, len(self.records)),
            sum(facts.get("regions", 0) for _, facts in shown),
            median(facts.get("score", 0.0) for _, facts in shown) if shown else None,
            median(areas) if areas else None,
        )


def read_run(out: Path) -> Run:
    """Read an output folder. Raises `SettingError` when there is no manifest in it."""
    try:
        lines = (out / MANIFEST).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingError(f"{out}: no {MANIFEST} in it; give a folder that `kshot label` wrote") from error
    records = {record["input"]: record for record in map(_record, lines) if record}
    return Run(out, list(records.values()), read_json(out / SETTINGS))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the folder; empty when it is missing or damaged, because a report beats none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s: left out of the report (%s)", path, error)
        return {}
    return value if isinstance(value, dict) else {}


def facts_of(record: Record) -> dict[str, dict[str, Any]]:
    """{class: present, pixels, regions, score} of a record."""
    facts: dict[str, dict[str, Any]] = record.get("classes", {})
    return facts


def hex_colour(index: int) -> str:
    """The colour of a label in overlays, for CSS."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(index))


def _record(line: str) -> Record | None:
    """A line of the manifest; None, and a warning, for one that a crash cut off."""
    try:
        record = json.loads(line)
        if isinstance(record["input"], str) and record["status"] in STATUSES:
            return dict(record)
    except (ValueError, KeyError, TypeError):
        pass
    log.warning("%s: a damaged line was left out", MANIFEST)
    return None
