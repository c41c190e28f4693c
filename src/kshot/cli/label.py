"""`kshot label`, `kshot fit` and `kshot predict`: supports in, masks of a folder out."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kshot.batch import label_folder, plan
from kshot.cli import options as o
from kshot.cli.output import finish, print_json, progress_bar, say
from kshot.errors import SettingError
from kshot.methods.base import Support, Task, load_task
from kshot.report import save_supports, write_report
from kshot.segmenter import Segmenter
from kshot.types import SupportSet

# Shown below the help; a blank line keeps lines apart.
LABEL_EXAMPLES = """Examples:

kshot label support/ images/ -o out/

kshot label images/ --box cat=a.jpg:10,20,90,80 -o out/ --format png,coco

kshot label images/ --text "rust spot" --backbone clip-dinoiser --method clip-dinoiser -o out/
"""
FIT_EXAMPLES = """Examples:

kshot fit support/ -o cat.kshot

kshot fit --support dog=d.jpg:d.png --add-to cat.kshot -o pets.kshot
"""
PREDICT_EXAMPLES = """Examples:

kshot predict cat.kshot images/ -o out/

kshot predict cat.kshot "images/*.tif" -o out/ --format png,scores --resume
"""


def label(
    paths: Annotated[list[str], typer.Argument(metavar="[SUPPORT] IMAGES", help="Support folder, then the images.")],
    out: o.Out,
    format: o.Formats = "png,overlay",
    instances: o.Instances = None,
    polygons: o.Polygons = False,
    tolerance: o.Tolerance = 0.0,
    copy_images: o.CopyImages = False,
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
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    limit: o.Limit = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Label a folder of images from a few supports: fit and predict in one go."""
    folder, images = _two_paths(paths, any((support, box, point, text)))
    formats = o.parse_formats(format)
    export = o.make_export(instances, polygons, tolerance, copy_images)
    supports = o.read_supports(folder, support, box, point, text, class_)
    if dry_run:
        return _say_plan(supports.classes, len(supports), images, out, formats, json)
    segmenter = o.make_segmenter(
        backbone=backbone,
        method=method,
        refiner=refiner,
        set_=set_,
        size=size,
        layers=layers,
        device=device,
        dtype=dtype,
        max_pixels=max_pixels,
    )
    say(_described(supports))
    task = segmenter.fit(supports)
    _say_remarks(task)
    how: dict[str, Any] = {"export": export, "resume": resume, "overwrite": overwrite, "limit": limit}
    _run(segmenter, task, images, out, formats, json, supports, **how)
    return None


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
        segmenter = _segmenter_of(before, chosen, rest)
        task = before.with_shots(supports, segmenter)
    task.save(out)
    _say_remarks(task)
    facts = {
        "task": str(out),
        "classes": task.classes,
        "supports": len(_showing(task)),
        "backbone": task.origin.backbone,
        "remarks": task.remarks,
    }
    if json:
        print_json(facts)
    else:
        say(_described(supports))
        typer.echo(f"{out}: {len(task.classes)} classes ({', '.join(task.classes)}), {_counted(task)}")


def _say_remarks(task: Task) -> None:
    for remark in task.remarks:
        say(f"look: {remark}")


def predict(
    task_file: Annotated[Path, typer.Argument(metavar="TASK", help="A task file of `kshot fit`.")],
    images: Annotated[str, typer.Argument(help="Folder, glob pattern or image.")],
    out: o.Out,
    format: o.Formats = "png,overlay",
    instances: o.Instances = None,
    polygons: o.Polygons = False,
    tolerance: o.Tolerance = 0.0,
    copy_images: o.CopyImages = False,
    backbone: o.Backbone = None,
    refiner: o.Refiner = None,
    set_: o.Set = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "float32",
    max_pixels: o.MaxPixels = o.DEFAULT_MAX_PIXELS,
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    limit: o.Limit = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking for new images until Ctrl-C.")] = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Masks of a folder of images with a saved task."""
    task = load_task(task_file)
    formats = o.parse_formats(format)
    export = o.make_export(instances, polygons, tolerance, copy_images)
    if dry_run:
        return _say_plan(task.classes, len(_showing(task)), images, out, formats, json)
    rest: dict[str, Any] = {"device": device, "dtype": dtype, "max_pixels": max_pixels}
    segmenter = _segmenter_of(task, {"backbone": backbone, "refiner": refiner, "set_": set_}, rest)
    how: dict[str, Any] = {"export": export, "resume": resume, "overwrite": overwrite, "limit": limit, "watch": watch}
    _run(segmenter, task, images, out, formats, json, None, **how)
    return None


def _segmenter_of(task: Task, chosen: dict[str, Any], rest: dict[str, Any]) -> Segmenter:
    given = {name: value for name, value in chosen.items() if value is not None}
    settings = o.parse_settings(given.pop("set_", ()))
    if "method_settings" in settings:
        raise SettingError("a task keeps its method's settings; fit anew for others (here, --set takes refiner.NAME)")
    return Segmenter.for_task(task, **given, **settings, **rest)


def _two_paths(paths: list[str], has_prompts: bool) -> tuple[str | None, str]:
    wanted = 1 if has_prompts else 2
    if len(paths) != wanted:
        hint = "IMAGES alone beside --support/--box/--point/--text" if has_prompts else "SUPPORT and IMAGES"
        raise typer.BadParameter(f"expected {hint}, got {len(paths)}: {' '.join(paths)}")
    return (None, paths[0]) if has_prompts else (paths[0], paths[1])


def _described(supports: SupportSet) -> str:
    counts = {name: sum(name in shot.classes for shot in supports) for name in supports.classes}
    listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"supports: {listed}; read from {supports.source}"


def _showing(task: Task) -> list[Support]:
    """The supports of a task that somebody gave: background words came by themselves."""
    return [support for support in task.supports if support.kind != "text" or bool(support.masks.any())]


def _counted(task: Task) -> str:
    texts = sum(support.kind == "text" for support in _showing(task))
    images = len(_showing(task)) - texts
    parts = [f"{images} support images"] if images or not texts else []
    return " and ".join([*parts, f"{texts} texts"] if texts else parts)


def _say_plan(
    classes: tuple[str, ...], shots: int, images: str, out: Path, formats: tuple[str, ...], json: bool
) -> None:
    jobs = plan(images, out)
    facts = {"classes": classes, "supports": shots, "images": len(jobs), "out": str(out), "formats": formats}
    if json:
        print_json(facts)
    else:
        typer.echo(
            f"would label {len(jobs)} images with {len(classes)} classes ({', '.join(classes)}) from {shots} supports, "
            f"as {', '.join(formats)} in {out}"
        )


def _run(
    segmenter: Segmenter,
    task: Task,
    images: str,
    out: Path,
    formats: tuple[str, ...],
    json: bool,
    supports: SupportSet | None,
    **how: Any,
) -> None:
    with progress_bar("labelling") as progress:
        notes = {"command": shlex.join(["kshot", *sys.argv[1:]])}
        summary = label_folder(segmenter, task, images, out, formats=formats, notes=notes, progress=progress, **how)
    # After the run, which refuses a folder that holds another one; an interrupted run gets its report too.
    if supports:
        save_supports(out, supports, task, segmenter.max_pixels)
    report = write_report(out)
    say(f"report: {report}")
    again = shlex.join(
        ["kshot", *[part for part in sys.argv[1:] if part not in {"--resume", "--overwrite"}], "--resume"]
    )
    finish(summary, json, again, report)
