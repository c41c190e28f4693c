"""`kshot train episodic`: learn a method on base classes of a data set."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json, say
from kshot.cli.train import LEARNING, option
from kshot.errors import SettingError
from kshot.training.episodic_recipes import AUGMENTATIONS, RECIPES

_DATA, _HEAD, _EPISODES, _WORK = "Data set", "Head", "Episodes", "Work"


def episodic(
    dataset: Annotated[str, typer.Argument(help="voc, coco, fss1000, folder, or auto.")],
    root: Annotated[Path, option(_DATA, "Where the data set lies.")],
    out: o.Out,
    method: Annotated[str, option(_HEAD, "prototype or dense-comparison.")] = "prototype",
    fold: Annotated[int | None, option(_DATA, "The classes of this fold are novel, all others base.")] = None,
    novel: Annotated[str | None, option(_DATA, "Novel classes: names with commas, or a file of names.")] = None,
    novel_every: Annotated[int, option(_DATA, "Every N-th class is novel, in the order of the data set.")] = 0,
    novel_offset: Annotated[int, option(_DATA, "The first of them, counted from 0.")] = 0,
    base: Annotated[
        str | None, option(_DATA, "Base classes, as for --novel. [default: all that are not novel]")
    ] = None,
    split: Annotated[str | None, option(_DATA, "Split to train on. [default: the one of supports]")] = None,
    start: Annotated[str, option(_HEAD, "Where a projection starts: identity or random.")] = "identity",
    width: Annotated[int | None, option(_HEAD, "Channels of the projection, or of the comparison (64).", min=1)] = None,
    cosines: Annotated[bool, option(_HEAD, "Cosines beside the features (dense-comparison).")] = True,
    recipe_: Annotated[str, option(LEARNING, f"A preset: {', '.join(RECIPES)}.", "--recipe")] = "seed",
    way: Annotated[int, option(_EPISODES, "Classes of a training episode.", min=1)] = 1,
    shot: Annotated[int, option(_EPISODES, "Supports of a class.", min=1)] = 1,
    episodes_per_epoch: Annotated[
        int | None, option(_EPISODES, "[default: one for each (image, class) pair]", min=1)
    ] = None,
    train_protocol: Annotated[
        str | None, option(_EPISODES, "hsnet: queries show their class; fs-cs: half of the time.")
    ] = None,
    validation: Annotated[int, option(_EPISODES, "Episodes of novel classes that are validated on.", min=1)] = 100,
    test: Annotated[int, option(_EPISODES, "Other episodes of them, written to OUT/novel.csv.", min=1)] = 200,
    augment: Annotated[str | None, option(_EPISODES, f"Change supports: {', '.join(AUGMENTATIONS)}.")] = None,
    variants: Annotated[int, option(_EPISODES, "Changed copies of each support that are cached.", min=1)] = 3,
    epochs: Annotated[int | None, option(LEARNING, "Epochs.", min=1)] = None,
    lr: Annotated[float | None, option(LEARNING, "Highest rate of AdamW.")] = None,
    weight_decay: Annotated[float | None, option(LEARNING, "Of AdamW.", min=0)] = None,
    batch_size: Annotated[int | None, option(LEARNING, "Episodes of a forward pass.", min=1)] = None,
    grad_accumulation_steps: Annotated[int | None, option(LEARNING, "Forward passes of a step.", min=1)] = None,
    balance: Annotated[
        float | None, option(LEARNING, "Power of the weights by presence; 0 is plain cross-entropy.", min=0)
    ] = None,
    align: Annotated[float | None, option(LEARNING, "Weight of the alignment loss (prototype).", min=0)] = None,
    drop: Annotated[
        float | None, option(LEARNING, "Probability that no refinement is learned (dense-comparison).")
    ] = None,
    patience: Annotated[int | None, option(LEARNING, "Epochs without a better one; 0: never stop.", min=0)] = None,
    seed: t.Seed = 0,
    backbone: o.Backbone = None,
    size: o.Size = None,
    layers: o.Layers = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "float32",
    cache: Annotated[Path | None, option(_WORK, "Folder of features. [default: the user's]")] = None,
    resume: Annotated[bool, option(_WORK, "Continue the run in OUT.", "--resume")] = False,
    json: o.Json = False,
) -> None:
    """Learn a method's head on episodes of base classes, and keep the one that is best on novel classes.

    The result is OUT/head.safetensors: give --set method.weights=OUT to label, fit and eval.

    [bold]Examples[/]

      kshot train episodic voc --root VOCdevkit/VOC2012 --fold 0 -o runs/projection

      kshot train episodic folder --root pets --novel-every 4 --method dense-comparison --recipe quick -o runs/head
    """
    from kshot import training
    from kshot.cli.evaluate import _user_cache
    from kshot.data.base import load_dataset
    from kshot.io.tensor_file import FILE
    from kshot.training.distributed import is_main_process

    place = (cache or _user_cache()).expanduser()
    chosen = training.recipe(
        recipe_,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        batch_size=batch_size,
        grad_accumulation_steps=grad_accumulation_steps,
        balance=balance,
        align=align,
        drop=drop,
        patience=patience,
        protocol=train_protocol,
    )
    segmenter = o.make_segmenter(
        backbone=backbone, method=method, refiner=None, size=size, layers=layers, device=device
    )
    with t.training_bar() as bar:
        made = training.episodic(
            segmenter,
            load_dataset(dataset, root, fold=fold, cache=place / "areas"),
            out,
            recipe=chosen,
            novel=_names("--novel", novel),
            novel_every=novel_every,
            novel_offset=novel_offset,
            base=_names("--base", base),
            split=split,
            start=start,
            width=width,
            cosines=cosines,
            way=way,
            shot=shot,
            episodes_per_epoch=episodes_per_epoch,
            validation=validation,
            test=test,
            augment=[part.strip() for part in (augment or "").split(",") if part.strip()],
            variants=variants,
            seed=seed,
            dtype=dtype,
            cache=place / "features",
            resume=resume,
            progress=bar,
        )
    if not is_main_process():
        return None
    if json:
        return print_json(asdict(made) | {"head": str(out / FILE), "recipe": asdict(chosen)})
    for line in made.told:
        say(line)
    typer.echo(
        f"novel mIoU on {validation} validation episodes: {100 * made.before:.1f} -> {100 * made.best:.1f} "
        f"(epoch {made.best_epoch} of {made.epochs})"
    )
    typer.echo(f"{out / FILE}: use it with --method {method} --set method.weights={out}")
    return None


def _names(flag: str, text: str | None) -> tuple[str, ...]:
    """Class names from "cat,dog", or from a file with one a line."""
    if text is None:
        return ()
    path = Path(text)
    parts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    names = tuple(part.strip() for part in parts if part.strip())
    if not names:
        raise SettingError(f"{flag} {text}: no class named")
    return names
