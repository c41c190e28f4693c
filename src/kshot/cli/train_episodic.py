"""`kshot train episodic`: learn a method on base classes of a data set."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json, say
from kshot.errors import SettingError
from kshot.training.episodic_recipes import AUGMENTATIONS, RECIPES, recipe

_data, _head, _episodes, _work = (partial(o.option, panel) for panel in ("Data set", "Head", "Episodes", "Work"))


@dataclass(frozen=True)
class Options:
    """Settings of `kshot.training.episodic`."""

    novel: Annotated[str | None, _data("Novel classes: names with commas, or a file of names.")] = None
    novel_every: Annotated[int, _data("Every N-th class is novel, in the order of the data set.")] = 0
    novel_offset: Annotated[int, _data("The first of them, counted from 0.")] = 0
    base: Annotated[str | None, _data("Base classes, as for --novel. [default: all that are not novel]")] = None
    split: Annotated[str | None, _data("Split to train on. [default: the one of supports]")] = None
    start: Annotated[str, _head("Where a projection starts: identity or random.")] = "identity"
    width: Annotated[int | None, _head("Channels of the projection, or of the comparison (64).", min=1)] = None
    cosines: Annotated[bool, _head("Cosines beside the features (dense-comparison).")] = True
    way: Annotated[int, _episodes("Classes of a training episode.", min=1)] = 1
    shot: Annotated[int, _episodes("Supports of a class.", min=1)] = 1
    episodes_per_epoch: Annotated[int | None, _episodes("[default: one for each (image, class) pair]", min=1)] = None
    validation: Annotated[int, _episodes("Episodes of novel classes that are validated on.", min=1)] = 100
    test: Annotated[int, _episodes("Other episodes of them, written to OUT/novel.csv.", min=1)] = 200
    augment: Annotated[str | None, _episodes(f"Change supports: {', '.join(AUGMENTATIONS)}.")] = None
    variants: Annotated[int, _episodes("Changed copies of each support that are cached.", min=1)] = 3
    seed: t.Seed = 0
    dtype: o.Dtype = "float32"
    cache: Annotated[Path | None, _work("Folder of features. [default: the user's]")] = None
    resume: Annotated[bool, _work("Continue the run in OUT.", "--resume")] = False
    overwrite: o.Overwrite = False


@dataclass(frozen=True)
class RecipeOptions:
    """Settings of a recipe that replace those of the preset."""

    epochs: Annotated[int | None, t.learning("Epochs.", min=1)] = None
    lr: Annotated[float | None, t.learning("Highest rate of AdamW.")] = None
    weight_decay: Annotated[float | None, t.learning("Of AdamW.", min=0)] = None
    batch_size: Annotated[int | None, t.learning("Episodes of a forward pass.", min=1)] = None
    grad_accumulation_steps: Annotated[int | None, t.learning("Forward passes of a step.", min=1)] = None
    balance: Annotated[
        float | None, t.learning("Power of the weights by presence; 0 is plain cross-entropy.", min=0)
    ] = None
    align: Annotated[float | None, t.learning("Weight of the alignment loss (prototype).", min=0)] = None
    drop: Annotated[float | None, t.learning("Probability that no refinement is learned (dense-comparison).")] = None
    patience: Annotated[int | None, t.learning("Epochs without a better one; 0: never stop.", min=0)] = None
    protocol: Annotated[
        str | None, _episodes("hsnet: queries show their class; fs-cs: half of the time.", "--train-protocol")
    ] = None


@o.grouped()
def episodic(
    dataset: Annotated[str, typer.Argument(help="voc, coco, fss1000, folder, or auto.")],
    root: Annotated[Path, _data("Where the data set lies.")],
    out: o.Out,
    options: Options,
    own: RecipeOptions,
    method: Annotated[str, _head("prototype or dense-comparison.")] = "prototype",
    fold: Annotated[int | None, _data("The classes of this fold are novel, all others base.")] = None,
    recipe_: Annotated[str, t.learning(f"A preset: {', '.join(RECIPES)}.", "--recipe")] = "seed",
    backbone: o.Backbone = None,
    size: o.Size = None,
    layers: o.Layers = None,
    device: o.Device = "auto",
    json: o.Json = False,
) -> None:
    """Learn a method's head on episodes of base classes, and keep the one that is best on novel classes.

    The result is OUT/head.safetensors: give --set method.weights=OUT to label, fit and eval.

    [bold]Examples[/]

      kshot train episodic voc --root VOCdevkit/VOC2012 --fold 0 -o runs/projection

      kshot train episodic folder --root pets --novel-every 4 --method dense-comparison --recipe quick -o runs/head
    """
    chosen = recipe(recipe_, **asdict(own))
    settings = asdict(options) | {
        "novel": parse_names("--novel", options.novel),
        "base": parse_names("--base", options.base),
    }
    settings["augment"] = [part.strip() for part in (options.augment or "").split(",") if part.strip()]
    from kshot import training
    from kshot.data.base import load_dataset
    from kshot.io.paths import user_cache
    from kshot.io.tensor_file import FILE
    from kshot.training.distributed import is_main_process

    place = (options.cache or user_cache()).expanduser()
    settings["cache"] = place / "features"
    segmenter = o.Model(
        backbone=backbone,
        method=method,
        size=None if size is None else str(size),
        layers=layers,
        device=device,
    ).segmenter()
    data = load_dataset(dataset, root, fold=fold, cache=place / "areas")
    with t.training_bar() as bar:
        made = training.episodic(segmenter, data, out, recipe=chosen, **settings, progress=bar)
    if not is_main_process():
        return None
    if json:
        return print_json(asdict(made) | {"head": str(out / FILE), "recipe": asdict(chosen)})
    for line in made.told:
        say(line)
    typer.echo(
        f"novel mIoU on {options.validation} validation episodes: {100 * made.before:.1f} -> {100 * made.best:.1f} "
        f"(epoch {made.best_epoch} of {made.epochs})"
    )
    typer.echo(f"{out / FILE}: use it with --method {method} --set method.weights={out}")
    return None


def parse_names(flag: str, text: str | None) -> tuple[str, ...]:
    """Class names from "cat,dog", or from a file with one a line."""
    if text is None:
        return ()
    path = Path(text)
    parts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    names = tuple(part.strip() for part in parts if part.strip())
    if not names:
        raise SettingError(f"{flag} {text}: no class named")
    return names
