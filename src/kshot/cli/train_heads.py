"""`kshot train heads`: guided pooling and objectness for a backbone, from photographs without labels."""

from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json, say

EXAMPLES = """Examples:

kshot train heads photos/ --backbone dinov2-small -o runs/heads

kshot label support/ images/ --backbone runs/heads/backbone -o out/
"""


def heads(
    photos: t.Photos,
    out: o.Out,
    backbone: o.Backbone = None,
    layers: o.Layers = None,
    teacher: Annotated[
        str | None, t.option(t.LEARNING, "Backbone that says what belongs together. [default: the backbone]")
    ] = None,
    masks: t.Masks = None,
    size: o.Size = None,
    steps: Annotated[int, t.option(t.LEARNING, "Steps of the optimizer.", min=1)] = 300,
    batch_size: t.BatchSize = 16,
    grad_accumulation_steps: t.GradAccumulationSteps = 1,
    lr: Annotated[float, t.option(t.LEARNING, "Learning rate of the affinities.")] = 1e-3,
    object_lr: Annotated[float, t.option(t.LEARNING, "Learning rate of objectness.")] = 0.01,
    affinity_threshold: Annotated[
        float, t.option(t.LEARNING, "Cosine of the teacher above which two patches are alike.")
    ] = 0.2,
    objectness_only: Annotated[
        bool, t.option(t.LEARNING, "The result adds objectness and pools nothing.", "--objectness-only")
    ] = False,
    validate_every: Annotated[int, t.option(t.LEARNING, "Steps between validations.", min=1)] = 50,
    patience: Annotated[
        int, t.option(t.LEARNING, "Stop after so many validations without a better one; 0: never.", min=0)
    ] = 0,
    limit: t.Limit = 1000,
    seed: t.Seed = 0,
    device: o.Device = "auto",
    dtype: t.Dtype = "float32",
    resume: o.Resume = False,
    json: o.Json = False,
) -> None:
    """Learn to pool what belongs together and to tell objects, from photographs without labels.

    OUT/backbone is then a backbone: give its folder to --backbone.
    """
    from kshot import training
    from kshot.report.training import write_report
    from kshot.training.distributed import is_main_process

    with t.training_bar() as bar:
        made = training.heads(
            photos,
            out,
            backbone=backbone,
            layers=o.parse_layers(layers),
            teacher=teacher,
            masks=masks,
            size=size,
            steps=steps,
            batch_size=batch_size,
            grad_accumulation_steps=grad_accumulation_steps,
            lr=lr,
            object_lr=object_lr,
            affinity_threshold=affinity_threshold,
            objectness_only=objectness_only,
            validate_every=validate_every,
            patience=patience,
            limit=limit,
            seed=seed,
            device=device,
            dtype=dtype,
            resume=resume,
            progress=bar,
        )
    if not is_main_process():
        return None
    report = write_report(out)
    if json:
        best = [made.best_step, made.best_loss]
        return print_json({"backbone": str(made.backbone), "steps": made.steps, "best": best, "report": str(report)})
    if made.stopped:
        say(f"stopped after {made.steps} steps: {made.stopped}")
    typer.echo(
        f"{made.backbone}: heads of step {made.best_step}, loss {made.best_loss:.4f} on {made.held_out} held-out "
        "photographs"
    )
    typer.echo(f"report: {report}")
    return None
