"""`kshot train distill`: photographs and large encoders in, a small encoder out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from filelock import FileLock

from kshot.backbones import tiny
from kshot.backbones.base import load_backbone
from kshot.backbones.tiny import Net, NetSizes
from kshot.cli import options as o
from kshot.cli.output import print_json, say
from kshot.cli.train import training_bar
from kshot.errors import SettingError, TrainingError
from kshot.report.training import write_report
from kshot.training import checkpoint, distill, teacher_features
from kshot.training.distributed import own_device
from kshot.training.trainer import Schedule, train
from kshot.training.twins import without
from kshot.training.unlabelled import Photos, find_photos

ENCODER = "encoder"
_HEAD = 64  # channels
_DATA, _NET, _WORK = "Photographs and teachers", "Encoder", "Training"
EXAMPLES = """Examples:

kshot train distill photos/ --teacher dinov2-small -o runs/mine

kshot label support/ images/ -o out/ --backbone runs/mine/encoder
"""


def distil(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs; sub-folders count.")],
    out: o.Out,
    teacher: Annotated[
        list[str], typer.Option(help="Backbone to learn from; may be given again.", rich_help_panel=_DATA)
    ],
    masks: Annotated[
        Path | None, typer.Option(help="Masks of objects: same place and name, .png.", rich_help_panel=_DATA)
    ] = None,
    without_: Annotated[
        list[Path] | None,
        typer.Option("--without", help="Folder of test images, not to be trained on.", rich_help_panel=_DATA),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Photographs at most.", rich_help_panel=_DATA)] = None,
    views: Annotated[int, typer.Option(min=1, help="Of each photograph.", rich_help_panel=_DATA)] = 3,
    grid: Annotated[int, typer.Option(min=4, help="Cells a side that teachers see.", rich_help_panel=_DATA)] = 20,
    dim: Annotated[int, typer.Option(min=8, help="Channels that come out.", rich_help_panel=_NET)] = 192,
    width: Annotated[int, typer.Option(min=16, help="Channels at a sixteenth.", rich_help_panel=_NET)] = 256,
    blocks: Annotated[int, typer.Option(min=0, help="Blocks of attention.", rich_help_panel=_NET)] = 4,
    sides: Annotated[
        str, typer.Option(help="Pixels of the student's views, climbed in equal parts.", rich_help_panel=_WORK)
    ] = "128,128,128,160,192,224",
    epochs: Annotated[
        float, typer.Option(min=0.001, help="Times through the photographs.", rich_help_panel=_WORK)
    ] = 60,
    batch_size: Annotated[int, typer.Option(min=1, help="Views a step.", rich_help_panel=_WORK)] = 16,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches a step.", rich_help_panel=_WORK)] = 1,
    lr: Annotated[float, typer.Option(help="Highest learning rate of AdamW.", rich_help_panel=_WORK)] = 1.5e-3,
    orthogonal: Annotated[
        float, typer.Option(min=0, help="Muon's rate for matrices, times lr; 0: AdamW alone.", rich_help_panel=_WORK)
    ] = 13.3,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=_WORK)] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.", rich_help_panel=_WORK)] = "bfloat16",
    device: o.Device = "auto",
    resume: o.Resume = False,
    json: o.Json = False,
) -> None:
    """Distil a small dense encoder, with objectness, from one or several backbones. OUT/encoder is a --backbone."""
    if masks is not None and not masks.is_dir():
        raise TrainingError(f"{masks}: no such folder of masks")
    if width > _HEAD and width % _HEAD:
        raise SettingError(f"--width {width}: expected a multiple of {_HEAD}, a head of attention each")
    plan = teacher_features.Plan(grid=grid, views=views, dim=dim, seed=seed)
    settings = distill.Settings(sides=_sides(sides))
    found = find_photos(photos, limit)
    files = Photos.split(without(found, without_ or ()))
    left_out = len(found) - len(files.held) - len(files.learned)
    if left_out:
        say(f"{left_out} photographs left out, since they lie in {' or '.join(map(str, without_ or ()))} too")
    say(f"{len(files.learned)} photographs to learn from, {len(files.held)} to validate on")
    place = own_device(device)
    # Of several processes the first makes the targets, and the others find them.
    with _alone(out), training_bar("targets") as bar:
        seers = [load_backbone(name, device=str(place), dtype=dtype) for name in teacher]
        targets = teacher_features.prepare(
            seers,
            photos,
            [*files.held, *files.learned],
            plan,
            out / "targets",
            masks=masks,
            step=lambda done, total: bar(done, total, {}),
        )
    schedule = Schedule(
        steps=max(1, round(epochs * len(files.learned) / (batch_size * accumulate))),
        batch_size=batch_size,
        accumulate=accumulate,
        lr=lr,
        orthogonal=orthogonal,
        weight_decay=0.02,
        warmup=0.01,
        average=0.999,
        dtype=dtype,
        validate_every=500,
        save_every=250,
        seed=seed,
    )
    torch.manual_seed(seed)
    net = Net(NetSizes(dim=dim, sixteenth=width, heads=max(1, width // _HEAD), residuals=(1, 1, 1), blocks=blocks))
    every = [*files.held, *files.learned]
    job = distill.Distill(net, every, len(files.held), targets, plan, settings, place, schedule.steps)
    facts: dict[str, Any] = {"what": "distill", "plan": asdict(plan), "distill": asdict(settings)}
    facts |= {"teachers": [seer.identity for seer in seers], "photos": len(every)}
    with training_bar("distil") as bar:
        outcome = train(job, schedule, out, facts, resume=resume, progress=bar)
    if not outcome.first:
        return
    checkpoint.load_weights(net, checkpoint.weights_of(outcome.path)[1], outcome.path)
    stretched = job.match_spread()
    tiny.save(net, out / ENCODER, {"teachers": teacher, "steps": outcome.best[0], "stretched": round(stretched, 4)})
    report = write_report(out)
    told = {"encoder": str(out / ENCODER), "steps": outcome.steps, "loss": outcome.best[1], "report": str(report)}
    if json:
        print_json(told)
    else:
        typer.echo(f"{out / ENCODER}: loss {outcome.best[1]:.4f} after {outcome.best[0]} steps")
        typer.echo(f"report: {report}")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".targets.lock"):
        yield


def _sides(text: str) -> tuple[int, ...]:
    try:
        sides = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(f"--sides {text}: expected whole numbers such as 128,160,192,224") from error
    if any(side < 32 or side % 16 for side in sides):
        raise SettingError(f"--sides {text}: expected multiples of 16 from 32 on")
    return sides
