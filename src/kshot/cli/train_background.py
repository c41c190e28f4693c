"""`kshot train background`: what else there is in the world, for a backbone, from photographs without labels."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.backbones.base import DEFAULT, load_backbone
from kshot.cli import options as o
from kshot.cli.output import print_json, say
from kshot.cli.parsing import parse_layers
from kshot.cli.train import training_bar
from kshot.training.background_prior import sample, write
from kshot.training.twins import without
from kshot.training.unlabelled import find_photos

EXAMPLES = """Examples:

kshot train background photos/ --backbone dinov2-small -o runs/background

kshot label support/ images/ -o out/ --backbone dinov2-small --set method.weights=runs/background
"""


def background(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs; labels are not needed.")],
    out: o.Out,
    backbone: o.Backbone = None,
    layers: o.Layers = None,
    size: o.Size = None,
    without_: Annotated[
        list[Path] | None, typer.Option("--without", help="Folder of test images, not to be learned from.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Photographs at most.")] = 1000,
    cells: Annotated[int, typer.Option(min=1, help="Drawn from each photograph.")] = 64,
    clusters: Annotated[int, typer.Option(min=1, help="Means that are kept.")] = 1024,
    rounds: Annotated[int, typer.Option(min=1, help="Of k-means.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of all chance.")] = 0,
    device: o.Device = "auto",
    json: o.Json = False,
) -> None:
    """Learn what cells of any photograph look like, so that what no support shows is not taken for a class.

    OUT is then for --set method.weights=OUT, with auto or density. kshot has one already for tiny and for vit-tiny.
    """
    seer = load_backbone(backbone or DEFAULT, device=device, layers=parse_layers(layers))
    found = find_photos(photos, limit)
    files = without(found, without_ or ())
    if len(files) < len(found):
        folders = " or ".join(map(str, without_ or ()))
        say(f"{len(found) - len(files)} photographs left out, since they lie in {folders} too")
    side = size or seer.spec.size
    with training_bar("cells") as bar:
        tokens = sample(seer, files, side, cells, seed, lambda done: bar(done, len(files), {}))
    path = write(out, seer, tokens, len(files), clusters, rounds, seed)
    if json:
        return print_json({"weights": str(path), "photographs": len(files), "cells": len(tokens)})
    typer.echo(f"{path}: {len(tokens)} cells of {len(files)} photographs; give it as --set method.weights={out}")
    return None
