"""One page over all cases, with everything in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kshot import _plugins
from kshot.demo.cases import CaseResult
from kshot.io.atomic import write_text
from kshot.io.manifest import Record
from kshot.report.labelling import embed, support_views
from kshot.report.rendering import hex_colour, render
from kshot.report.run import read_run
from kshot.segmenter import Segmenter

_SIDE = 640  # pixels; the photographs are hardly larger
_LEARNED_NOTHING = {"classic"}


def write_page(path: Path, results: Sequence[CaseResult], skipped: Mapping[str, str], segmenter: Segmenter) -> None:
    """Write the page. Raises `OutputError`."""
    origin = segmenter.feature_spec
    context = {
        "cases": [_case(result, path.parent, origin.backbone in _LEARNED_NOTHING) for result in results],
        "skipped": skipped,
        "backbone": origin.backbone,
        "method": _plugins.name_of(segmenter.method),
        "refiner": _plugins.name_of(segmenter.refiner),
        "size": origin.size,
        "supports": sum(len(result.case.supports) for result in results),
        "queries": sum(len(result.case.queries) for result in results),
        "iou": fmean(result.iou for result in results) if results else None,
    }
    write_text(path, render("demo.html.j2", context))


def _case(result: CaseResult, out: Path, learned_nothing: bool) -> dict[str, Any]:
    run = read_run(result.folder / "result")
    panes_of = zip(run.records, embed(run, run.records, _SIDE), strict=True)
    return {
        "case": result.case,
        "classes": [(name, hex_colour(label)) for label, name in enumerate(result.case.classes, 1)],
        "supports": support_views(run),
        "queries": [_query(result, record, panes) for record, panes in panes_of],
        "command": result.command,
        "iou": result.iou,
        "note": result.case.without_learning if learned_nothing else "",
        "details": (result.folder / "result" / "report.html").relative_to(out).as_posix(),
    }


def _query(result: CaseResult, record: Record, panes: tuple[str | None, str | None, str | None]) -> dict[str, Any]:
    overlay, image, scores = panes
    named = [("Image", image), ("Found", overlay), ("Score", scores)]
    return {
        "name": record["input"],
        "size_hw": record["size_hw"],
        "panes": [(name, source) for name, source in named if source],
        "ious": result.ious[Path(record["input"]).stem],
        "facts": record["classes"],
    }
