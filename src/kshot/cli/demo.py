"""`kshot demo`: the main job on photographs that are already on this machine."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kshot.cli import options as o
from kshot.cli.output import answer, say

if TYPE_CHECKING:
    from kshot.demo import Demo


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("kshot-demo"),
    backbone: o.Backbone = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Run the main job on real photographs and write OUT/report.html: open it."""
    from kshot.demo import run_demo

    done = run_demo(out, backbone=backbone, overwrite=overwrite, progress=lambda case: say(f"{case.title} ..."))
    for name, reason in done.skipped.items():
        say(f"{name} left out: {reason}")
    images, support, page = (str(out / part) for part in ("coins/images", "coins/support", "page"))
    serve = shlex.join(["kshot", "serve", images, support, "-o", page, "--open"])
    listed = ", ".join(f"{result.case.name} {result.iou:.2f}" for result in done.cases)
    answer(
        json,
        _facts(done),
        f"{len(done.cases)} runs on {done.images} images in {done.seconds:.1f} s, backbone {done.backbone}",
        f"IoU with masks drawn by hand: {listed}",
        f"report: {done.report}",
        f"paint on them yourself, in the browser: {serve}",
    )


def _facts(done: "Demo") -> dict[str, Any]:
    cases = [
        {"name": r.case.name, "folder": str(r.folder), "command": r.command, "objects": r.objects, "iou": r.ious}
        for r in done.cases
    ]
    return asdict(done) | {"report": str(done.report), "cases": cases}
