"""`kshot train heads`: guided pooling and objectness for a backbone, from photographs without labels."""

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json, say
from kshot.cli.parsing import parse_layers

HEADS_EXAMPLES = """Examples:

kshot train heads photos/ --backbone dinov2-small -o runs/heads

kshot label support/ images/ --backbone runs/heads/backbone -o out/
"""


@dataclass(frozen=True)
class Options:
    """Settings of `kshot.training.heads`."""

    backbone: o.Backbone = None
    layers: o.Layers = None
    teacher: Annotated[str | None, t.learning("Backbone that says what belongs together. [default: the backbone]")] = (
        None
    )
    size: o.Size = None
    steps: Annotated[int, t.learning("Steps of the optimizer.", min=1)] = 300
    lr: Annotated[float, t.learning("Learning rate of the affinities.")] = 1e-3
    object_lr: Annotated[float, t.learning("Learning rate of objectness.")] = 0.01
    affinity_threshold: Annotated[float, t.learning("Cosine of the teacher above which two patches are alike.")] = 0.2
    objectness_only: Annotated[
        bool, t.learning("The result adds objectness and pools nothing.", "--objectness-only")
    ] = False
    validate_every: Annotated[int, t.learning("Steps between validations.", min=1)] = 50
    patience: Annotated[int, t.learning("Stop after so many validations without a better one; 0: never.", min=0)] = 0
    limit: t.Limit = 1000
    dtype: Annotated[str, t.learning("float32 or bfloat16.")] = "float32"


@o.grouped()
def heads(photos: t.Photos, out: o.Out, options: Options, learning: t.Learning, json: o.Json = False) -> None:
    """Learn to pool what belongs together and to tell objects, from photographs without labels.

    OUT/backbone is then a backbone: give its folder to --backbone.
    """
    settings = asdict(options) | {"layers": parse_layers(options.layers)}
    from kshot import training
    from kshot.report.training import write_report
    from kshot.training.distributed import is_main_process

    with t.training_bar() as bar:
        made = training.heads(photos, out, **settings, **asdict(learning), progress=bar)
    if not is_main_process():
        return None
    report, run = write_report(out), made.training
    if json:
        best = [run.best_step, run.best]
        return print_json({"backbone": str(made.backbone), "steps": run.steps, "best": best, "report": str(report)})
    if run.stopped:
        say(f"stopped after {run.steps} steps: {run.stopped}")
    typer.echo(
        f"{made.backbone}: heads of step {run.best_step}, loss {run.best:.4f} on {made.held_out} held-out photographs"
    )
    typer.echo(f"report: {report}")
    return None
