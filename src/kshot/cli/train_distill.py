"""`kshot train distill`: a small encoder from large ones, on photographs without labels."""

from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json, say
from kshot.errors import SettingError

_NET = "Encoder"
EXAMPLES = """Examples:

kshot train distill photos/ --teacher dinov2-small -o runs/mine

kshot label support/ images/ -o out/ --backbone runs/mine/encoder
"""


def distill(
    photos: t.Photos,
    out: o.Out,
    teacher: Annotated[list[str], t.option(t.DATA, "Backbone to learn from; may be given again.")],
    masks: t.Masks = None,
    without: t.Without = None,
    limit: Annotated[int | None, t.option(t.DATA, "Photographs at most.", min=2)] = None,
    views: Annotated[int, t.option(t.DATA, "Views of each photograph.", min=1)] = 3,
    grid: Annotated[int, t.option(t.DATA, "Patches a side that teachers see.", min=4)] = 20,
    dim: Annotated[int, t.option(_NET, "Channels that come out.", min=8)] = 192,
    width: Annotated[int, t.option(_NET, "Channels at a sixteenth of the resolution.", min=16)] = 256,
    blocks: Annotated[int, t.option(_NET, "Blocks of attention.", min=0)] = 4,
    sides: Annotated[
        str, t.option(t.LEARNING, "Pixels of the student's views, in equal parts of the training.")
    ] = "128,128,128,160,192,224",
    epochs: Annotated[float, t.option(t.LEARNING, "Times through the photographs.", min=0.001)] = 60,
    batch_size: t.BatchSize = 16,
    grad_accumulation_steps: t.GradAccumulationSteps = 1,
    lr: t.Lr = 1.5e-3,
    muon_lr_ratio: Annotated[
        float, t.option(t.LEARNING, "Learning rate of Muon for matrices, times lr; 0: AdamW alone.", min=0)
    ] = 13.3,
    seed: t.Seed = 0,
    dtype: t.Dtype = "bfloat16",
    device: o.Device = "auto",
    resume: o.Resume = False,
    json: o.Json = False,
) -> None:
    """Distil a small dense encoder, with objectness, from one or several backbones. OUT/encoder is a --backbone."""
    from kshot import training
    from kshot.report.training import write_report
    from kshot.training.distributed import is_main_process

    with t.training_bar() as bar:
        made = training.distill(
            photos,
            out,
            teacher,
            masks=masks,
            without=without or (),
            limit=limit,
            views=views,
            grid=grid,
            dim=dim,
            width=width,
            blocks=blocks,
            sides=parse_sides(sides),
            epochs=epochs,
            batch_size=batch_size,
            grad_accumulation_steps=grad_accumulation_steps,
            lr=lr,
            muon_lr_ratio=muon_lr_ratio,
            seed=seed,
            dtype=dtype,
            device=device,
            resume=resume,
            progress=bar,
        )
    if not is_main_process():
        return None
    report = write_report(out)
    if json:
        facts = {"encoder": str(made.encoder), "steps": made.steps, "loss": made.best_loss, "report": str(report)}
        return print_json(facts)
    if made.near_duplicates:
        say(
            f"{made.near_duplicates} photographs left out, since they lie in {' or '.join(map(str, without or ()))} too"
        )
    say(f"learned from {made.learned_from} photographs, validated on {made.held_out}")
    typer.echo(f"{made.encoder}: loss {made.best_loss:.4f} after {made.best_step} steps")
    typer.echo(f"report: {report}")
    return None


def parse_sides(text: str) -> tuple[int, ...]:
    """Numbers of a text such as 128,160; raises `SettingError` for other texts."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(f"--sides {text}: expected whole numbers such as 128,160,192,224") from error
