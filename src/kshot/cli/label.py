"""`kshot label` and `kshot predict`: masks of a folder, from supports or from a task file."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kshot.batch import label_folder, plan
from kshot.batch.inputs import split
from kshot.cli import options as o
from kshot.cli.fit import described, say_remarks, segmenter_of, showing
from kshot.cli.output import finish, print_json, progress_bar, say
from kshot.features.tiles import Tiling
from kshot.io.videos import is_video
from kshot.methods.base import Task, load_task
from kshot.report import save_supports, write_report
from kshot.segmenter import Segmenter
from kshot.types import SupportSet

# Shown below the help; a blank line keeps lines apart.
LABEL_EXAMPLES = """Examples:

kshot label support/ images/ -o out/

kshot label images/ --box cat=a.jpg:10,20,90,80 -o out/ --format png,coco

kshot label images/ --text "rust spot" --backbone clip-dinoiser --method clip-dinoiser -o out/
"""
PREDICT_EXAMPLES = """Examples:

kshot predict cat.kshot images/ -o out/

kshot predict cat.kshot "images/*.tif" -o out/ --format png,scores --resume

kshot predict cat.kshot scene.tif -o out/ --tile 512 --bands 4,3,2 --format png,geotiff

kshot predict cat.kshot film.mp4 -o out/ --every 10
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
    bands: o.Bands = None,
    stretch: o.Stretch = None,
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    limit: o.Limit = None,
    only_unannotated: o.OnlyUnannotated = False,
    tile: o.Tile = None,
    overlap: o.Overlap = 64,
    every: o.Every = 1,
    watch: o.Watch = False,
    workers: o.Workers = None,
    engine: o.EngineName = "local",
    shard: o.InShard = None,
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
        **o.reading(max_pixels, bands, stretch),
    )
    say(described(supports))
    task = segmenter.fit(supports)
    say_remarks(task)
    how = _how(workers, engine, shard, watch=watch, export=export, resume=resume, overwrite=overwrite, limit=limit)
    how |= {"tiling": Tiling(tile, overlap) if tile is not None else None, "every": every}
    how["skip"] = o.images_to_skip(images, supports) if only_unannotated else ()
    _run(segmenter, task, images, out, formats, json, supports, **how)
    return None


def predict(
    task_file: Annotated[Path, typer.Argument(metavar="TASK", help="A task file of `kshot fit`.")],
    images: Annotated[str, typer.Argument(help="Folder, glob pattern, image or video.")],
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
    bands: o.Bands = None,
    stretch: o.Stretch = None,
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    limit: o.Limit = None,
    only_unannotated: o.OnlyUnannotated = False,
    tile: o.Tile = None,
    overlap: o.Overlap = 64,
    every: o.Every = 1,
    watch: o.Watch = False,
    workers: o.Workers = None,
    engine: o.EngineName = "local",
    shard: o.InShard = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Masks of a folder of images with a saved task."""
    task = load_task(task_file)
    formats = o.parse_formats(format)
    export = o.make_export(instances, polygons, tolerance, copy_images)
    if dry_run:
        return _say_plan(task.classes, len(showing(task)), images, out, formats, json)
    rest: dict[str, Any] = {"device": device, "dtype": dtype, **o.reading(max_pixels, bands, stretch)}
    segmenter = segmenter_of(task, {"backbone": backbone, "refiner": refiner, "set_": set_}, rest)
    how = _how(workers, engine, shard, watch=watch, export=export, resume=resume, overwrite=overwrite, limit=limit)
    how |= {"tiling": Tiling(tile, overlap) if tile is not None else None, "every": every}
    how["skip"] = o.images_to_skip(images, None) if only_unannotated else ()
    _run(segmenter, task, images, out, formats, json, None, **how)
    return None


def _how(workers: int | None, engine: str, shard: str | None, **how: Any) -> dict[str, Any]:
    """What `label_folder` is told of the run."""
    return how | o.parse_engine(engine, workers, how["watch"]) | {"shard": o.parse_shard(shard)}


def _two_paths(paths: list[str], has_prompts: bool) -> tuple[str | None, str]:
    wanted = 1 if has_prompts else 2
    if len(paths) != wanted:
        hint = "IMAGES alone beside --support/--box/--point/--text" if has_prompts else "SUPPORT and IMAGES"
        raise typer.BadParameter(f"expected {hint}, got {len(paths)}: {' '.join(paths)}")
    return (None, paths[0]) if has_prompts else (paths[0], paths[1])


def _say_plan(
    classes: tuple[str, ...], shots: int, images: str, out: Path, formats: tuple[str, ...], json: bool
) -> None:
    jobs = plan(images, out)
    videos = sum(is_video(job.path) for job in jobs)
    count = sum(len(list(split(job))) for job in jobs if not is_video(job.path))
    facts = {"classes": classes, "supports": shots, "images": count, "videos": videos}
    facts |= {"out": str(out), "formats": formats}
    counted = f"{count} images" + (f" and {videos} videos" if videos else "")
    if json:
        print_json(facts)
    else:
        typer.echo(
            f"would label {counted} with {len(classes)} classes ({', '.join(classes)}) from {shots} supports, "
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
        # Without --resume, so that a run in several goes leaves the same files as one in one go.
        notes = {"command": shlex.join(["kshot", *(part for part in sys.argv[1:] if part != "--resume")])}
        summary = label_folder(segmenter, task, images, out, formats=formats, notes=notes, progress=progress, **how)
    # After the run, which refuses a folder that holds another one; an interrupted run gets its report too.
    if supports:
        save_supports(out, supports, task, segmenter.max_pixels, segmenter.look)
    report = write_report(out)
    say(f"report: {report}")
    again = shlex.join(
        ["kshot", *[part for part in sys.argv[1:] if part not in {"--resume", "--overwrite"}], "--resume"]
    )
    finish(summary, json, again, report)
