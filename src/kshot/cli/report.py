"""`kshot report`: an output folder as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli.output import answer


@o.grouped()
def report(
    *,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that label or predict wrote.")],
    embed: Annotated[
        int | None, typer.Option(min=0, help=r"Images that the file carries itself. \[default: 400]")
    ] = None,
    limits: o.Limits,
    json: o.JsonAlone = False,
) -> None:
    """Write OUT/report.html again: supports, results with the doubtful first, failures, the command.

    Other thresholds are decided on what the run saved, for this page alone.
    """
    from kshot.report import write_report
    from kshot.report.labelling import EMBED_LIMIT

    path = write_report(out, embed_limit=EMBED_LIMIT if embed is None else embed, thresholds=limits.thresholds())
    answer(json, {"report": str(path)}, str(path))
