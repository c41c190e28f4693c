"""`kshot train background`: a background prior for a backbone, from photographs without labels."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli import train as t
from kshot.cli.output import print_json
from kshot.cli.parsing import parse_layers

BACKGROUND_EXAMPLES = """Examples:

kshot train background photos/ --backbone dinov2-small -o runs/background

kshot label support/ images/ -o out/ --backbone dinov2-small --set method.weights=runs/background
"""


@dataclass(frozen=True)
class Options:
    """Settings of `kshot.training.background_prior`."""

    backbone: o.Backbone = None
    layers: o.Layers = None
    size: o.Size = None
    without: t.Without = None
    episodes: Annotated[int, t.data("Episodes of each --masks, for each number of classes and supports.", min=10)] = 150
    limit: t.Limit = 1200
    patches: Annotated[int, t.learning("Patches drawn from each photograph.", min=1)] = 64
    clusters: Annotated[int, t.learning("Means that are kept at most.", min=1)] = 1024
    rounds: Annotated[int, t.learning("Rounds of k-means.", min=1)] = 12
    seed: t.Seed = 0
    device: o.Device = "auto"
    overwrite: o.Overwrite = False


@o.grouped()
def background(
    photos: t.Photos,
    out: o.Out,
    options: Options,
    discriminants: Annotated[
        list[Path] | None, t.data("Data set with masks of many classes, for linear discriminants; may be given again.")
    ] = None,
    partial_discriminants: Annotated[
        list[Path] | None, t.data("The same, of several sources: names begin with the source's and _.")
    ] = None,
    masks: Annotated[
        list[Path] | None, t.data("Data set of labelled photographs, for the presence model; may be given again.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Learn what patches of any photograph look like, so that what no support shows is not taken for a class.

    With --discriminants, also in which directions of the features classes differ, so that the same class is recognised
    in other light, from other sides. With --masks, also how sure `auto` may be that a class is in an image.

    OUT is then for --set method.weights=OUT, with auto or density. kshot has one already for tiny and for vit-tiny.
    """
    settings = asdict(options) | {"layers": parse_layers(options.layers), "without": options.without or ()}
    from kshot import training

    with t.training_bar() as bar:
        made = training.background_prior(
            photos,
            out,
            discriminants=t.open_datasets(discriminants or []),
            partial_discriminants=t.open_datasets(partial_discriminants or []),
            masks=t.open_datasets(masks or []),
            **settings,
            progress=bar,
        )
    if json:
        return print_json(
            {"weights": str(made.weights), "photographs": made.photos, "patches": made.patches}
            | {"decisions": made.decisions}
        )
    t.say_near_duplicates(made.near_duplicates, options.without)
    typer.echo(
        f"{made.weights}: {made.patches} patches of {made.photos} photographs; give it as --set method.weights={out}"
    )
    return None
