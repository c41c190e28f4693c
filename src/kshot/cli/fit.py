"""`kshot fit`: supports in, a task file out."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kshot.batch.review import Effect, effect
from kshot.cli import options as o
from kshot.cli.output import print_json, say
from kshot.errors import SettingError
from kshot.io.manifest import MANIFEST, read_manifest, read_settings
from kshot.methods.base import Support, Task, load_task
from kshot.segmenter import Segmenter
from kshot.types import Shot, SupportSet

FIT_EXAMPLES = """Examples:

kshot fit support/ -o cat.kshot

kshot fit support/ --add out/accepted -o better.kshot

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
    bands: o.Bands = None,
    stretch: o.Stretch = None,
    add: Annotated[
        Path | None, typer.Option("--add-to", help="Start from this task file and add the supports.")
    ] = None,
    accepted: Annotated[
        list[str] | None,
        typer.Option("--add", help="A folder of more labels, such as OUT/accepted; may be given again."),
    ] = None,
    json: o.Json = False,
) -> None:
    """Fit a task from supports and save it: the dear part once, for any number of folders."""
    more = [shot for name in accepted or () for shot in SupportSet.from_folder(name)]
    if more and add is not None and not any((folder, support, box, point, text)):
        supports = SupportSet(more, source=", ".join(accepted or ()))
    else:
        supports = o.read_supports(folder, support, box, point, text, class_)
        supports = SupportSet([*supports, *more], source=" and ".join([supports.source, *(accepted or ())]))
    rest: dict[str, Any] = {"device": device, "dtype": dtype, **o.reading(max_pixels, bands, stretch)}
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
    say_remarks(task)
    facts: dict[str, Any] = {
        "task": str(out),
        "classes": task.classes,
        "supports": len(showing(task)),
        "backbone": task.origin.backbone,
        "remarks": task.remarks,
    }
    effects = [_effect(segmenter, task, Path(name), more) for name in accepted or ()]
    found = [each for each in effects if each]
    if found:
        facts["effect"] = [asdict(each) for each in found]
    if json:
        print_json(facts)
    else:
        say(described(supports))
        typer.echo(f"{out}: {len(task.classes)} classes ({', '.join(task.classes)}), {counted(task)}")
        for each in found:
            typer.echo(
                f"mean uncertainty of the {each.images} most doubtful other images: "
                f"{100 * each.before:.1f}% -> {100 * each.after:.1f}%"
            )


def _effect(segmenter: Segmenter, task: Task, accepted: Path, added: Sequence[Shot]) -> Effect | None:
    """What the labels of a folder in a run do to the run's other images; None when it lies in no run."""
    run = accepted.resolve().parent
    images = read_settings(run).get("images") if (run / MANIFEST).is_file() else None
    if not isinstance(images, str):
        return None
    known = {Path(shot.image).resolve() for shot in added if isinstance(shot.image, str | Path)}
    masks = {r["input"]: Path(*Path(r["mask"]).parts[1:]) for r in read_manifest(run) if "mask" in r}
    known |= {(Path(images) / name).resolve() for name, mask in masks.items() if (accepted / mask).is_file()}
    return effect(segmenter, task, run, Path(images), known)


def segmenter_of(task: Task, chosen: dict[str, Any], rest: dict[str, Any]) -> Segmenter:
    """The Segmenter that a task was fitted with, but for the options that were given."""
    given = {name: value for name, value in chosen.items() if value is not None}
    settings = o.parse_settings(given.pop("set_", ()))
    if "method_settings" in settings:
        raise SettingError("a task keeps its method's settings; fit anew for others (here, --set takes refiner.NAME)")
    return Segmenter.for_task(task, **given, **settings, **rest)


def say_remarks(task: Task) -> None:
    """What fitting noticed about the supports, for people."""
    for remark in task.remarks:
        say(f"look: {remark}")


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
