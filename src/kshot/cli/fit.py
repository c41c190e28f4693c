"""`kshot fit`: supports in, a task file out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kshot.cli import options as o
from kshot.cli.output import print_json, say
from kshot.errors import SettingError
from kshot.methods.base import Support, Task, load_task
from kshot.segmenter import Segmenter
from kshot.types import SupportSet

FIT_EXAMPLES = """Examples:

kshot fit support/ -o cat.kshot

kshot fit --support dog=d.jpg:d.png --add-to cat.kshot -o pets.kshot
"""


def fit(
    out: Annotated[Path, typer.Option("--out", "-o", help="Task file to write, e.g. dog.kshot.")],
    folder: Annotated[str | None, typer.Argument(metavar="[SUPPORT]", help="Support folder.")] = None,
    support: o.Supports = None,
    box: o.Boxes = None,
    point: o.Points = None,
    text: o.Texts = None,
    class_: o.ClassNames = None,
    backbone: o.Backbone = None,
    method: o.Method = None,
    refiner: o.Refiner = None,
    set_: o.Set = None,
    size: o.Size = None,
    layers: o.Layers = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "float32",
    max_pixels: o.MaxPixels = o.DEFAULT_MAX_PIXELS,
    add: Annotated[
        Path | None, typer.Option("--add-to", help="Start from this task file and add the supports.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Fit a task from supports and save it: the dear part once, for any number of folders."""
    supports = o.read_supports(folder, support, box, point, text, class_)
    rest: dict[str, Any] = {"device": device, "dtype": dtype, "max_pixels": max_pixels}
    chosen: dict[str, Any] = {
        "backbone": backbone,
        "method": method,
        "refiner": refiner,
        "set_": set_,
        "size": size,
        "layers": layers,
    }
    if add is None:
        segmenter = o.make_segmenter(**chosen, **rest)
        task = segmenter.fit(supports)
    else:
        before = load_task(add)
        segmenter = segmenter_of(before, chosen, rest)
        task = before.with_shots(supports, segmenter)
    task.save(out)
    facts = {
        "task": str(out),
        "classes": task.classes,
        "supports": len(showing(task)),
        "backbone": task.origin.backbone,
    }
    if json:
        print_json(facts)
    else:
        say(described(supports))
        typer.echo(f"{out}: {len(task.classes)} classes ({', '.join(task.classes)}), {counted(task)}")


def segmenter_of(task: Task, chosen: dict[str, Any], rest: dict[str, Any]) -> Segmenter:
    """The Segmenter that a task was fitted with, but for the options that were given."""
    given = {name: value for name, value in chosen.items() if value is not None}
    settings = o.parse_settings(given.pop("set_", ()))
    if "method_settings" in settings:
        raise SettingError("a task keeps its method's settings; fit anew for others (here, --set takes refiner.NAME)")
    return Segmenter.for_task(task, **given, **settings, **rest)


def described(supports: SupportSet) -> str:
    """What the supports are, and where they were found."""
    counts = {name: sum(name in shot.classes for shot in supports) for name in supports.classes}
    listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"supports: {listed}; read from {supports.source}"


def showing(task: Task) -> list[Support]:
    """The supports of a task that somebody gave: background words came by themselves."""
    return [support for support in task.supports if support.kind != "text" or bool(support.masks.any())]


def counted(task: Task) -> str:
    """How many supports a task has, of each kind."""
    texts = sum(support.kind == "text" for support in showing(task))
    images = len(showing(task)) - texts
    parts = [f"{images} support images"] if images or not texts else []
    return " and ".join([*parts, f"{texts} texts"] if texts else parts)
