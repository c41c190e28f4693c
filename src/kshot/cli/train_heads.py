"""`kshot train heads`: guided pooling and objectness for a backbone, from photographs without labels."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.backbones.base import DEFAULT, load_backbone
from kshot.cli import options as o
from kshot.cli.output import print_json, say
from kshot.cli.parsing import parse_layers
from kshot.cli.train import training_bar
from kshot.errors import SettingError, TrainingError
from kshot.report.training import write_report
from kshot.training.cells import Seen, View
from kshot.training.distributed import own_device
from kshot.training.heads import LearnHeads, write_backbone
from kshot.training.trainer import Schedule, train
from kshot.training.unlabelled import Photos, find_photos

_TRAIN, _LEARN = "Run", "Learning"
_MOST_HELD = 64

EXAMPLES = """Examples:

kshot train heads photos/ --backbone dinov2-small -o runs/heads

kshot label support/ images/ --backbone runs/heads/backbone -o out/
"""


def heads(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs; labels are not needed.")],
    out: o.Out,
    backbone: o.Backbone = None,
    layers: o.Layers = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Backbone that says what belongs together. [default: the backbone]", rich_help_panel=_LEARN),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Objects: same place and name as the photograph, as .png.", rich_help_panel=_LEARN),
    ] = None,
    size: o.Size = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the optimizer.", rich_help_panel=_LEARN)] = 300,
    batch_size: Annotated[int, typer.Option(min=1, help="Photographs at once.", rich_help_panel=_LEARN)] = 16,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches a step.", rich_help_panel=_LEARN)] = 1,
    lr: Annotated[float, typer.Option(help="Learning rate of the affinities.", rich_help_panel=_LEARN)] = 1e-3,
    object_lr: Annotated[float, typer.Option(help="Learning rate of objectness.", rich_help_panel=_LEARN)] = 0.01,
    gamma: Annotated[
        float, typer.Option(help="Cosine of the teacher above which cells are alike.", rich_help_panel=_LEARN)
    ] = 0.2,
    keep_cells: Annotated[
        bool,
        typer.Option("--keep-cells", help="The result adds objectness and pools nothing.", rich_help_panel=_LEARN),
    ] = False,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps.", rich_help_panel=_TRAIN)] = 50,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after so many validations without a better one.", rich_help_panel=_TRAIN)
    ] = 0,
    limit: Annotated[int, typer.Option(min=2, help="Photographs at most.", rich_help_panel=_TRAIN)] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of all chance.", rich_help_panel=_TRAIN)] = 0,
    device: o.Device = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.", rich_help_panel=_TRAIN)] = "float32",
    resume: o.Resume = False,
    json: o.Json = False,
) -> None:
    """Learn to pool what belongs together and to tell objects, from photographs without labels.

    OUT/backbone is then a backbone: give its folder to --backbone.
    """
    schedule = Schedule(
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        lr=lr,
        weight_decay=0.0,
        dtype=dtype,
        validate_every=validate_every,
        save_every=validate_every,
        patience=patience,
        seed=seed,
    )
    if object_lr <= 0:
        raise SettingError(f"--object-lr {object_lr}: expected more than 0")
    if masks is not None and not masks.is_dir():
        raise TrainingError(f"{masks}: no such folder of masks")
    place = str(own_device(device))
    carrier = load_backbone(backbone or DEFAULT, device=place, layers=parse_layers(layers))
    view = View(size or View.size, str(masks or ""))
    if view.size < carrier.spec.patch:
        raise SettingError(f"--size {view.size} is smaller than one patch of {carrier.spec.patch} pixels")
    guide = load_backbone(teacher, device=place) if teacher else None
    split = Photos.split(find_photos(photos, limit))
    used = (*split.held[:_MOST_HELD], *split.learned)
    held = len(used) - len(split.learned)
    seen = Seen(carrier, guide, photos, used, view, out / "cells")
    job = LearnHeads(seen, held, carrier.device, gamma=gamma, object_share=object_lr / lr, seed=seed)
    settings = {
        "what": "heads",
        "backbone": carrier.spec.name,
        "gamma": gamma,
        "object_lr": object_lr,
        "held": held,
    } | seen.facts
    with training_bar("heads") as step:
        outcome = train(job, schedule, out, settings, resume=resume, progress=step)
    if not outcome.first:
        return None
    folder = write_backbone(out, backbone or DEFAULT, carrier, not keep_cells)
    report = write_report(out)
    if json:
        return print_json(
            {"backbone": str(folder), "steps": outcome.steps, "best": outcome.best, "report": str(report)}
        )
    if outcome.stopped:
        say(f"stopped after {outcome.steps} steps: {outcome.stopped}")
    typer.echo(f"{folder}: heads of step {outcome.best[0]}, loss {outcome.best[1]:.4f} on {held} held-out photographs")
    typer.echo(f"report: {report}")
    return None
