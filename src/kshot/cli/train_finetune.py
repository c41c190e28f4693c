"""`kshot train finetune`: an encoder learns to compare, on images with masks."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json, say
from kshot.cli.parsing import parse_layers
from kshot.cli.train_distill import parse_sides
from kshot.cli.train_episodic import parse_names

FINETUNE_EXAMPLES = """Examples:

kshot train finetune --masks pets/ --check cells/ --photos photos/ -o runs/mine

kshot label support/ images/ -o out/ --backbone runs/mine/encoder
"""


@dataclass(frozen=True)
class Options:
    """Settings of `kshot.training.finetune`."""

    own_network: Annotated[bool, o.option("Encoder", "Copy a ViT into kshot's own network first.")] = False
    photos: Annotated[Path | None, t.data("Photographs without labels, which hold the features.")] = None
    last_blocks: Annotated[int, o.option("Encoder", "Blocks that learn, from the last; 0: everything.", min=0)] = 6
    anchor: Annotated[float, t.learning("Weight of the distance to the features as they were.", min=0)] = 1.5
    mix: Annotated[float, t.learning("Where the result lies: 0 the weights as they were, 1 as learned.")] = 0.5
    tolerance: Annotated[float, t.learning("mIoU (0..1) that no --check may lose.", min=0)] = 0.01
    sides: Annotated[str, t.learning("Pixels of the views; each step takes one.")] = "256,320,384"
    steps: Annotated[int, t.learning("Steps of the optimizer.", min=1)] = 1000
    batch_size: Annotated[int, t.learning("Labelled images of a step.", min=2)] = 8
    photos_per_batch: Annotated[int, t.learning("Photographs beside them.", min=0)] = 3
    textures: Annotated[float, t.learning("Fraction of steps that learn textures of --photos.", min=0)] = 0.0
    lr: t.Lr = 1.5e-4
    episodes: Annotated[int, t.learning("Episodes of each --check.", min=1)] = 60
    validate_every: Annotated[int, t.learning("Steps between validations.", min=1)] = 150
    patience: Annotated[int, t.learning("Validations without a better one; 0: never stop.", min=0)] = 4
    seed: t.Seed = 0
    dtype: Annotated[str, t.learning("float32 or bfloat16.")] = "bfloat16"
    resume: o.Resume = False
    overwrite: o.Overwrite = False


@o.grouped()
def finetune(
    masks: Annotated[list[Path], t.data("Data set to learn from, such as images/ + masks/; may be given again.")],
    check: Annotated[list[Path], t.data("Data set that watches and must not lose; may be given again.")],
    out: o.Out,
    options: Options,
    partial_masks: Annotated[
        list[Path] | None, t.data("The same, of several sources: names begin with the source's and _.")
    ] = None,
    novel: Annotated[str | None, t.data("Classes of which nothing is learned: names, or a file.")] = None,
    backbone: o.Backbone = None,
    size: o.Size = None,
    layers: o.Layers = None,
    device: o.Device = "auto",
    json: o.Json = False,
) -> None:
    """Teach an encoder to compare, on images with masks of many classes. OUT/encoder is a --backbone.

    What watches (--check) holds other images, best of other kinds; a state that loses there is not kept.
    """
    settings = asdict(options) | {"sides": parse_sides(options.sides), "novel": parse_names("--novel", novel)}
    from kshot import training
    from kshot.report.training import write_report

    with t.training_bar() as bar:
        made = training.finetune(
            backbone,
            out,
            t.open_datasets(masks),
            t.open_datasets(check),
            partial=t.open_datasets(partial_masks or []),
            size=size,
            layers=parse_layers(layers),
            device=device,
            **settings,
            progress=bar,
        )
    report, run = write_report(out), made.training
    for line in made.told:
        say(line)
    if json:
        print_json(
            {"encoder": made.encoder and str(made.encoder), "before": made.before, "after": made.after}
            | {"steps": run.steps, "best_step": run.best_step, "report": str(report)}
        )
    else:
        for name, value in made.before.items():
            typer.echo(f"{name}: {100 * value:.1f} -> {100 * made.after[name]:.1f}")
        typer.echo(f"report: {report}")
        if made.encoder:
            typer.echo(f"{made.encoder}: use it with --backbone {made.encoder}")
    if made.encoder is None:
        say("no state was kept: each lost on a --check; try a smaller --lr, a larger --anchor, or --photos")
        raise typer.Exit(1)
