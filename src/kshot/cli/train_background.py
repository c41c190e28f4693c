"""`kshot train background`: a background prior for a backbone, from photographs without labels."""

from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json, say

EXAMPLES = """Examples:

kshot train background photos/ --backbone dinov2-small -o runs/background

kshot label support/ images/ -o out/ --backbone dinov2-small --set method.weights=runs/background
"""


def background(
    photos: t.Photos,
    out: o.Out,
    backbone: o.Backbone = None,
    layers: o.Layers = None,
    size: o.Size = None,
    without: t.Without = None,
    limit: t.Limit = 1000,
    patches: Annotated[int, t.option(t.LEARNING, "Patches drawn from each photograph.", min=1)] = 64,
    clusters: Annotated[int, t.option(t.LEARNING, "Means that are kept.", min=1)] = 1024,
    rounds: Annotated[int, t.option(t.LEARNING, "Rounds of k-means.", min=1)] = 12,
    seed: t.Seed = 0,
    device: o.Device = "auto",
    json: o.Json = False,
) -> None:
    """Learn what patches of any photograph look like, so that what no support shows is not taken for a class.

    OUT is then for --set method.weights=OUT, with auto or density. kshot has one already for tiny and for vit-tiny.
    """
    from kshot.training import background_prior

    with t.training_bar() as bar:
        made = background_prior(
            photos,
            out,
            backbone=backbone,
            layers=o.parse_layers(layers),
            size=size,
            without=without or (),
            limit=limit,
            patches=patches,
            clusters=clusters,
            rounds=rounds,
            seed=seed,
            device=device,
            progress=bar,
        )
    if json:
        return print_json({"weights": str(made.weights), "photographs": made.photos, "patches": made.patches})
    if made.near_duplicates:
        say(
            f"{made.near_duplicates} photographs left out, since they lie in {' or '.join(map(str, without or ()))} too"
        )
    typer.echo(
        f"{made.weights}: {made.patches} patches of {made.photos} photographs; give it as --set method.weights={out}"
    )
    return None
