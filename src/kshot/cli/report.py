"""`kshot report`: an output folder as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.cli.output import print_json
from kshot.report import EMBED_LIMIT, write_report


def report(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that label or predict wrote.")],
    embed: Annotated[int, typer.Option("--embed", min=0, help="Images that the file carries itself.")] = EMBED_LIMIT,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Write OUT/report.html again: supports, results with the doubtful first, failures, the command."""
    path = write_report(out, embed_limit=embed)
    if json:
        print_json({"report": str(path)})
    else:
        typer.echo(str(path))
