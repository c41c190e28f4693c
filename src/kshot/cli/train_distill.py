"""`kshot train distill`: a small encoder from large ones, on photographs without labels."""

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json, say
from kshot.errors import SettingError

DISTILL_EXAMPLES = """Examples:

kshot train distill photos/ --teacher dinov2-small -o runs/mine

kshot label support/ images/ -o out/ --backbone runs/mine/encoder
"""


@dataclass(frozen=True)
class Options:
    """Settings of `kshot.training.distill`."""

    without: t.Without = None
    limit: Annotated[int | None, t.data("Photographs at most.", min=2)] = None
    views: Annotated[int, t.data("Views of each photograph.", min=1)] = 3
    grid: Annotated[int, t.data("Patches a side that teachers see.", min=4)] = 20
    dim: Annotated[int, o.option("Encoder", "Channels that come out.", min=8)] = 384
    start: Annotated[str, o.option("Encoder", "tiny: from its blocks; random.")] = "tiny"
    width: Annotated[int, o.option("Encoder", "Channels of a block.", min=16)] = 192
    blocks: Annotated[int, o.option("Encoder", "Blocks.", min=1)] = 12
    sides: Annotated[str, t.learning("Pixels of the student's views, in equal parts of the training.")] = (
        "192,224,288,384"
    )
    epochs: Annotated[float, t.learning("Times through the photographs.", min=0.001)] = 60
    lr: t.Lr = 1.5e-3
    muon_lr_ratio: Annotated[float, t.learning("Muon's rate for matrices, times lr; 0: AdamW alone.", min=0)] = 13.3
    dtype: Annotated[str, t.learning("float32 or bfloat16.")] = "bfloat16"


@o.grouped()
def distill(
    photos: t.Photos,
    out: o.Out,
    teacher: Annotated[list[str], t.data("Backbone to learn from; may be given again.")],
    options: Options,
    learning: t.Learning,
    json: o.Json = False,
) -> None:
    """Distil a small dense encoder, with objectness, from one or several backbones. OUT/encoder is a --backbone."""
    settings = asdict(options) | {"sides": parse_sides(options.sides), "without": options.without or ()}
    from kshot import training
    from kshot.report.training import write_report
    from kshot.training.distributed import is_main_process

    with t.training_bar() as bar:
        made = training.distill(photos, out, teacher, **settings, **asdict(learning), progress=bar)
    if not is_main_process():
        return None
    report, run = write_report(out), made.training
    if json:
        return print_json({"encoder": str(made.encoder), "steps": run.steps, "loss": run.best, "report": str(report)})
    t.say_near_duplicates(made.near_duplicates, options.without)
    say(f"learned from {made.learned_from} photographs, validated on {made.held_out}")
    typer.echo(f"{made.encoder}: loss {run.best:.4f} after {run.best_step} steps")
    typer.echo(f"report: {report}")
    return None


def parse_sides(text: str) -> tuple[int, ...]:
    """Numbers of a text such as 128,160; raises `SettingError` for other texts."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(f"--sides {text}: expected whole numbers such as 128,160,192,224") from error
