"""report.html of a labelling run. The page gets its records as JSON and draws a few dozen of them at a time."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from kshot.io.atomic import write_text
from kshot.io.manifest import FAILED, Record
from kshot.report.columns import columns_of
from kshot.report.rendering import REPORT, hex_colour, render, script_json
from kshot.report.run import Run, read_run
from kshot.report.supports import read_supports
from kshot.report.thumbnails import data_uri, drawn_labels, drawn_mask, score_map, thumbnail
from kshot.types import Thresholds

EMBED_LIMIT = 400
_SIDES = ((24, 800), (80, 560), (10**9, 360))  # the more images, the smaller their copies
_SUPPORTS, _FAILURES = 48, 200  # shown at most; a report is no archive
_BINS = 20
Embedded = tuple[str | None, str | None, str | None]


def write_report(out: Path, *, embed_limit: int = EMBED_LIMIT, thresholds: Thresholds | None = None) -> Path:
    """Write report.html into an output folder and return its path.

    embed_limit: the report carries so many images itself, the most uncertain ones, and links to the others' files.
    thresholds: other ones than the run had, for this page alone; what lies in the folder stays.
    Raises `SettingError` when `out` holds no run, and for thresholds that need scores which were not saved (`scores`
    among the formats), and `OutputError`.
    """
    run = read_run(out, thresholds)
    write_text(out / REPORT, render("report.html.j2", _context(run, embed_limit)))
    return out / REPORT


def embed(run: Run, records: Sequence[Record], side: int) -> list[Embedded]:
    """Data URIs of each record's overlay, image and score map, None for what there is not."""

    def one(record: Record) -> Embedded:
        image = thumbnail(run.image_of(record), side)
        if record["input"] in run.labels:
            overlay: Image.Image | None = drawn_labels(run.labels[record["input"]](), image, run.classes, side)
        else:
            overlay = thumbnail(run.output_of(record, "overlay"), side)
            overlay = overlay or drawn_mask(run.output_of(record, "png"), image, run.classes, side)
        heat = score_map(run.output_of(record, "scores"), side)
        return data_uri(overlay), data_uri(image), data_uri(heat)

    # Decoding and encoding happen in C without the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, records))


def support_views(run: Run) -> list[dict[str, Any]]:
    """Name, image and marks of each support; texts have no image."""
    views = []
    for line in read_supports(run.out, run.settings.get("task"))[:_SUPPORTS]:
        marks = [mark | {"colour": _colour_in(run, mark["class"])} for mark in line["marks"]]
        image = thumbnail(run.out / line["overlay"], 560) if "overlay" in line else None
        if "text" in line:
            views.append({"name": line["text"], "source": "", "marks": marks})
        elif image:
            views.append({"name": line["image"], "source": data_uri(image), "size": image.size, "marks": marks})
    return views


def _context(run: Run, embed_limit: int) -> dict[str, Any]:
    doubtful = [record for record in run.records if record["status"] != FAILED]
    chosen = sorted(doubtful, key=lambda r: -r.get("uncertainty", 0.0))[:embed_limit]
    side = next(side for most, side in _SIDES if len(chosen) <= most)
    place = {record["input"]: index for index, record in enumerate(chosen)}
    embedded = embed(run, chosen, side)
    return {
        "run": run,
        "title": run.out.resolve().name,
        "supports": support_views(run),
        "failures": [r for r in run.records if r["status"] == FAILED][:_FAILURES],
        "doubt": _doubt(doubtful),
        "embedded": len(embedded),
        "facts": _facts(run),
        "command": str(run.settings.get("command", "")),
        "settings": json.dumps(run.settings, indent=2),
        "data": script_json(
            {
                "classes": [{"name": line.name, "colour": line.colour} for line in run.figures],
                "images": _link(run.out, run.images),
                **columns_of(run, place),
            }
        ),
        "embeds": script_json(embedded),
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    """The settings that people ask for first."""
    settings = run.settings
    backbone = settings.get("backbone") if isinstance(settings.get("backbone"), dict) else {}
    named: dict[str, Any] = {
        "Backbone": backbone and backbone.get("backbone"),
        "Size": backbone and f"{backbone.get('size')} px",
        "Method": settings.get("method"),
        "Refiner": settings.get("refiner"),
        "kshot": settings.get("kshot"),
        "Task": str(settings.get("task", ""))[:12],
    }
    return [(name, str(value)) for name, value in named.items() if value]


def _doubt(records: Sequence[Record]) -> dict[str, Any] | None:
    """The distribution of uncertainty, worth a figure from twenty images on."""
    values = [min(1.0, max(0.0, float(record.get("uncertainty", 0.0)))) for record in records]
    if len(values) < _BINS:
        return None
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int(value * _BINS))] += 1
    return {"counts": counts, "most": max(counts), "median": median(values)}


def _colour_in(run: Run, name: str) -> str:
    return hex_colour(run.classes.index(name) + 1) if name in run.classes else "#888888"


def _link(out: Path, folder: Path | None) -> str | None:
    """A relative link from the report to the folder of images."""
    if folder is None:
        return None
    try:
        return Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive on Windows
        return None
