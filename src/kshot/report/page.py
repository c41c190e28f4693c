"""From a run to one HTML file. The page gets its records as JSON and draws a few dozen of them at a time."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kshot._version import __version__
from kshot.io.atomic import write_text
from kshot.io.manifest import FAILED, Record
from kshot.report.columns import columns_of
from kshot.report.labelling import Run, hex_colour, read_run
from kshot.report.pictures import data_uri, drawn_mask, score_map, thumbnail
from kshot.report.supports import read_supports

REPORT = "report.html"
EMBED_LIMIT = 400
_SIDES = ((24, 800), (80, 560), (10**9, 360))  # the more images, the smaller their copies
_SUPPORTS, _FAILURES = 48, 200  # shown at most; a report is no archive
_BINS = 20
Embedded = tuple[str | None, str | None, str | None]


def write_report(out: Path, *, embed_limit: int = EMBED_LIMIT) -> Path:
    """Write report.html into an output folder and return its path.

    embed_limit: the report carries so many images itself, the most uncertain ones, and links to the others' files.
    Raises `SettingError` when `out` holds no run, and `OutputError`.
    """
    run = read_run(out)
    write_text(out / REPORT, render("report.html.j2", _context(run, embed_limit)))
    return out / REPORT


def render(template: str, context: dict[str, Any]) -> str:
    """A page of the package's templates, everything escaped."""
    environment = Environment(
        loader=PackageLoader("kshot", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": "{:,}".format}
    page = environment.get_template(template).render(version=__version__, **context)
    # File names that are no Unicode come through Python as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def script_json(value: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # ASCII without markup, see above


def percent(share: float | None) -> str:
    """A share for people: 0.042 is 4.2%; nothing is a dash."""
    if share is None:
        return "–"
    return f"{100 * share:.1f}%" if 0 < share < 0.0995 else f"{100 * share:.0f}%"


def embed(run: Run, records: Sequence[Record], side: int) -> list[Embedded]:
    """Data URIs of each record's overlay, picture and score map, None for what there is not."""

    def one(record: Record) -> Embedded:
        picture = thumbnail(run.picture_of(record), side)
        overlay = thumbnail(run.output_of(record, "overlay"), side)
        overlay = overlay or drawn_mask(run.output_of(record, "png"), picture, run.classes, side)
        heat = score_map(run.output_of(record, "scores"), side)
        return data_uri(overlay), data_uri(picture), data_uri(heat)

    # Decoding and encoding happen in C without the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, records))


def support_views(run: Run) -> list[dict[str, Any]]:
    """Name, picture and marks of each support; words have no picture."""
    views = []
    for line in read_supports(run.out, run.settings.get("task"))[:_SUPPORTS]:
        marks = [mark | {"colour": _colour_in(run, mark["class"])} for mark in line["marks"]]
        picture = thumbnail(run.out / line["overlay"], 560) if "overlay" in line else None
        if "text" in line:
            views.append({"name": line["text"], "source": "", "marks": marks})
        elif picture:
            views.append({"name": line["image"], "source": data_uri(picture), "size": picture.size, "marks": marks})
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
                "pictures": _link(run.out, run.pictures),
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


__all__ = ["EMBED_LIMIT", "REPORT", "embed", "percent", "render", "script_json", "support_views", "write_report"]
