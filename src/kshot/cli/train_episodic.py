"""`kshot train episodic`: learn a method on base classes of a data set."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kshot.cli import options as o
from kshot.cli.output import print_json, say
from kshot.cli.train import training_bar
from kshot.data.base import load_dataset
from kshot.errors import SettingError
from kshot.io.paths import user_cache
from kshot.io.tensor_file import FILE
from kshot.training.augment import KINDS
from kshot.training.episodic_recipes import RECIPES, recipe
from kshot.training.episodic_run import Choices, learn

_DATA, _HEAD, _EPISODES, _LEARNING, _WORK = "Data set", "Head", "Episodes", "Learning", "Work"


def _given(panel: str, help: str, *flags: str, **more: Any) -> Any:
    return typer.Option(*flags, help=help, rich_help_panel=panel, **more)


def episodic(
    dataset: Annotated[str, typer.Argument(help="voc, coco, fss1000, folder, or auto.")],
    root: Annotated[Path, _given(_DATA, "Where the data set lies.")],
    out: o.Out,
    method: Annotated[str, _given(_HEAD, "prototype or dense-comparison.")] = "prototype",
    fold: Annotated[int | None, _given(_DATA, "The classes of this fold are novel, all others base.")] = None,
    novel: Annotated[str | None, _given(_DATA, "Novel classes: names with commas, or a file of names.")] = None,
    novel_every: Annotated[int, _given(_DATA, "Every N-th class is novel, in the order of the data set.")] = 0,
    novel_offset: Annotated[int, _given(_DATA, "The first of them, counted from 0.")] = 0,
    base: Annotated[
        str | None, _given(_DATA, "Base classes, as for --novel. [default: all that are not novel]")
    ] = None,
    split: Annotated[str | None, _given(_DATA, "Split to train on. [default: the one of supports]")] = None,
    start: Annotated[str, _given(_HEAD, "Where a projection starts: identity or random.")] = "identity",
    width: Annotated[int | None, _given(_HEAD, "Channels of the projection, or of the comparison (64).", min=1)] = None,
    cosines: Annotated[bool, _given(_HEAD, "Cosines beside the features (dense-comparison).")] = True,
    recipe_: Annotated[str, _given(_LEARNING, f"A preset: {', '.join(RECIPES)}.", "--recipe")] = "seed",
    way: Annotated[int, _given(_EPISODES, "Classes of a training episode.", min=1)] = 1,
    shot: Annotated[int, _given(_EPISODES, "Supports of a class.", min=1)] = 1,
    episodes_per_epoch: Annotated[
        int | None, _given(_EPISODES, "[default: one for each (image, class) pair]", min=1)
    ] = None,
    train_protocol: Annotated[
        str | None, _given(_EPISODES, "hsnet: queries show their class; fs-cs: half of the time.")
    ] = None,
    validation: Annotated[int, _given(_EPISODES, "Episodes of novel classes that are validated on.", min=1)] = 100,
    test: Annotated[int, _given(_EPISODES, "Other episodes of them, written to OUT/novel.csv.", min=1)] = 200,
    augment: Annotated[str | None, _given(_EPISODES, f"Change supports: {', '.join(KINDS)}.")] = None,
    variants: Annotated[int, _given(_EPISODES, "Changed copies of each support that are cached.", min=1)] = 3,
    epochs: Annotated[int | None, _given(_LEARNING, "Epochs.", min=1)] = None,
    lr: Annotated[float | None, _given(_LEARNING, "Highest rate of AdamW.")] = None,
    weight_decay: Annotated[float | None, _given(_LEARNING, "Of AdamW.", min=0)] = None,
    batch_size: Annotated[int | None, _given(_LEARNING, "Episodes of a forward pass.", min=1)] = None,
    accumulate: Annotated[int | None, _given(_LEARNING, "Passes of a step.", min=1)] = None,
    balance: Annotated[
        float | None, _given(_LEARNING, "Power of the weights by presence; 0 is plain cross-entropy.", min=0)
    ] = None,
    align: Annotated[float | None, _given(_LEARNING, "Weight of the alignment loss (prototype).", min=0)] = None,
    drop: Annotated[float | None, _given(_LEARNING, "Chance that the last mask is dropped (dense-comparison).")] = None,
    patience: Annotated[int | None, _given(_LEARNING, "Epochs without a better one; 0: never stop.", min=0)] = None,
    seed: Annotated[int, _given(_LEARNING, "Of everything.", min=0)] = 0,
    backbone: o.Backbone = None,
    size: o.Size = None,
    layers: o.Layers = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "float32",
    cache: Annotated[Path | None, _given(_WORK, "Folder of features. [default: the user's]")] = None,
    resume: Annotated[bool, _given(_WORK, "Continue the run in OUT.", "--resume")] = False,
    json: o.Json = False,
) -> None:
    """Learn a method's head on episodes of base classes, and keep the one that is best on novel classes.

    The result is OUT/head.safetensors: give --set method.weights=OUT to label, fit and eval.

    [bold]Examples[/]

      kshot train episodic voc --root VOCdevkit/VOC2012 --fold 0 -o runs/projection

      kshot train episodic folder --root pets --novel-every 4 --method dense-comparison --recipe quick -o runs/head
    """
    place = (cache or user_cache()).expanduser()
    chosen = recipe(
        recipe_,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        batch_size=batch_size,
        accumulate=accumulate,
        balance=balance,
        align=align,
        drop=drop,
        patience=patience,
        protocol=train_protocol,
    )
    choices = Choices(
        method=method,
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
        augment=tuple(part.strip() for part in augment.split(",") if part.strip()) if augment else (),
        variants=variants,
        seed=seed,
        dtype=dtype,
    )
    segmenter = o.Model(backbone=backbone, method=method, size=size, layers=layers, device=device).segmenter()
    data = load_dataset(dataset, root, fold=fold, cache=place / "areas")
    with training_bar("learning") as step:
        found = learn(segmenter, data, out, choices, chosen, cache=place / "features", resume=resume, progress=step)
    if json:
        return print_json(asdict(found) | {"head": str(out / FILE), "recipe": asdict(chosen)})
    for line in found.told:
        say(line)
    typer.echo(
        f"novel mIoU on {validation} validation episodes: {100 * found.before:.1f} -> {100 * found.best:.1f} "
        f"(epoch {found.best_epoch} of {found.epochs})"
    )
    typer.echo(f"{out / FILE}: use it with --method {method} --set method.weights={out}")
    return None


def _names(flag: str, text: str | None) -> tuple[str, ...]:
    """Class names from "cat,dog", or from a file with one a line."""
    if text is None:
        return ()
    path = Path(text)
    parts: Sequence[str] = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    names = tuple(part.strip() for part in parts if part.strip())
    if not names:
        raise SettingError(f"{flag} {text}: no class named")
    return names
