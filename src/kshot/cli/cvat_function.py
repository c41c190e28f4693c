"""`kshot cvat-function`: a task file as a function that CVAT's own command line runs."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli.output import answer

CVAT_FUNCTION_EXAMPLES = """Examples:

kshot cvat-function cat.kshot -o kshot_cat.py

cvat-cli task auto-annotate 137 --function-file kshot_cat.py --allow-unmatched-labels
"""


@o.grouped()
def cvat_function(
    *,
    task: Annotated[Path, typer.Argument(metavar="TASK", help="A task file of `kshot fit`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Python file to write, e.g. kshot_cat.py.")],
    json: o.JsonAlone = False,
) -> None:
    """Write an auto-annotation function of CVAT, which labels the images of a CVAT task from this machine."""
    from kshot.serve.cvat_function import write_cvat_function

    classes = write_cvat_function(task, out)
    run = f"cvat-cli task auto-annotate TASK_ID --function-file {out} --allow-unmatched-labels"
    answer(json, {"written": str(out), "classes": classes, "command": run}, f"{out}: {', '.join(classes)}", run)
