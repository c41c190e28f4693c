"""`kshot label` and `kshot predict`: masks of a folder, from supports or from a task file."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kshot.cli import options as o
from kshot.cli import parsing
from kshot.cli.output import (
    answer,
    described,
    finish,
    progress_bar,
    say,
    say_notes,
    say_size,
    say_warnings,
)
from kshot.errors import SettingError, plural

if TYPE_CHECKING:
    from kshot.batch import Shard
    from kshot.methods.base import Task
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


@o.grouped()
def label(
    *,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="[SUPPORT] IMAGES", help="Support folder, then folders, patterns, images or videos."),
    ],
    out: o.Out,
    format: o.Formats = "png,overlay",
    shapes: o.Shapes,
    table: o.Table,
    prompts: o.Prompts,
    model: o.Model,
    limits: o.Limits,
    run: o.Run,
) -> None:
    """Label a folder of images from a few supports: fit and predict in one go."""
    folder, images = _split_paths(paths, bool(prompts))
    how = _keywords(run, format, shapes) | {"thresholds": limits.thresholds(), **table.settings()}
    from kshot.cli.prompts import read_supports

    supports = read_supports(folder, prompts)
    say_notes(supports)
    if run.dry_run:
        return _say_plan(supports.classes, len(supports), images, out, run, supports, **how)
    segmenter = model.segmenter()
    say(described(supports))
    task = segmenter.fit(supports)
    say_size(task)
    say_warnings(task)
    return _label(segmenter, task, images, out, run, supports, keep=_files_of(folder, supports), **how)


@o.grouped("method", "size", "layers")
def predict(
    *,
    task_file: Annotated[Path, typer.Argument(metavar="TASK", help="A task file of `kshot fit`.")],
    images: Annotated[list[str], typer.Argument(help="Folders, glob patterns, images or videos.")],
    out: o.Out,
    format: o.Formats = "png,overlay",
    shapes: o.Shapes,
    table: o.Table,
    method_file: Annotated[
        Path | None, typer.Option("--method", help="The task's method, when it is a Python file of your own.")
    ] = None,
    model: o.Model,
    limits: o.Limits,
    run: o.Run,
) -> None:
    """Masks of a folder of images with a saved task."""
    how = _keywords(run, format, shapes) | {"thresholds": limits.thresholds(), **table.settings()}
    from kshot.tasks import load_task

    task = load_task(task_file, method_file)
    if run.dry_run:
        return _say_plan(task.classes, task.support_count, images, out, run, None, **how)
    return _label(model.segmenter_of(task), task, images, out, run, None, **how)


def _files_of(folder: str | None, supports: "SupportSet") -> list[Path]:
    """What the supports are read from."""
    given = [part for shot in supports for part in (shot.image, shot.mask) if isinstance(part, str | Path)]
    return [Path(part) for part in ([folder] if folder else []) + given]


def _split_paths(paths: list[str], has_prompts: bool) -> tuple[str | None, list[str]]:
    """The support folder, unless prompts stand in for it, and the images; a shell makes many paths of *.jpg."""
    if has_prompts:
        if len(paths) > 1 and Path(paths[0]).is_dir():
            raise typer.BadParameter("expected IMAGES alone beside --support/--box/--point/--scribble/--text")
        return None, paths
    if len(paths) < 2:
        raise typer.BadParameter(f"expected SUPPORT and IMAGES, got {len(paths)}: {' '.join(paths)}")
    return paths[0], paths[1:]


def _say_plan(
    classes: tuple[str, ...],
    shots: int,
    images: list[str],
    out: Path,
    run: o.Run,
    supports: "SupportSet | None",
    *,
    formats: tuple[str, ...],
    shard: "Shard | None",
    **_: Any,
) -> None:
    from kshot.batch.inputs import Inputs, count_images

    skip = _annotated(images, supports) if run.only_unannotated else ()
    inputs = Inputs(images, out, limit=run.limit, shard=shard, skip=skip)
    count, videos = count_images(inputs)
    odd = [{"input": file.name, "reason": str(file.problem)} for file in inputs.files if file.problem]
    facts = {"classes": classes, "supports": shots, "images": count, "videos": videos, "failures": odd}
    counted = plural(count, "image") + (f" and {plural(videos, 'video')}" if videos else "")
    for each in odd:
        say(f"would fail: {each['input']}: {each['reason']}")
    named = f"{plural(len(classes), 'class', 'classes')} ({', '.join(classes)})"
    told = f"would label {counted} with {named} from {plural(shots, 'support')}"
    answer(run.json, facts | {"out": str(out), "formats": formats}, f"{told}, as {', '.join(formats)} in {out}")


def _annotated(images: list[str], supports: "SupportSet | None") -> frozenset[Path]:
    """Resolved paths of the images that have labels beside them, and of those of the supports."""
    from kshot.batch.inputs import common_root
    from kshot.formats.base import annotated

    shown = {Path(shot.image).resolve() for shot in supports or () if isinstance(shot.image, str | Path)}
    return annotated(common_root(images)) | shown


def _label(
    segmenter: "Segmenter",
    task: "Task",
    images: list[str],
    out: Path,
    run: o.Run,
    supports: "SupportSet | None",
    **how: Any,
) -> None:
    """Label the folder, print the summary and leave with its exit code."""
    from kshot.batch import label_folder
    from kshot.report import save_supports, write_report

    if run.only_unannotated:
        how["skip"] = _annotated(images, supports)
    # Without --resume, so that a run in several goes leaves the same files as one in one go.
    how["notes"] = {"command": _command_without("--resume")}
    with progress_bar("labelling") as progress:
        summary = label_folder(segmenter, task, images, out, progress=progress, **how)
    # After the run, which refuses a folder that holds another one; an interrupted run gets its report too.
    if supports:
        save_supports(out, supports, task, segmenter.shot_reader)
    report = write_report(out)
    say(f"report: {report}")
    finish(summary, run.json, f"{_command_without('--resume', '--overwrite')} --resume", report, supports)


def _keywords(run: o.Run, format: str, shapes: o.Shapes) -> dict[str, Any]:
    """What `label_folder` is told of these options. Raises `SettingError`."""
    how: dict[str, Any] = {name: getattr(run, name) for name in ("resume", "overwrite", "limit", "watch")}
    how |= {name: getattr(run, name) for name in ("every", "memory", "sequence")}
    how |= {"formats": parsing.parse_formats(format), "export": shapes.export()}
    shard, workers = parsing.parse_shard(run.shard), parsing.parse_workers(run.workers)
    how["batch"] = parsing.parse_batch_size(run.batch_size)
    _check_batches(run, how["batch"])
    from kshot.batch import Shard, ray_engine
    from kshot.features.tiles import Tiling

    how["shard"] = shard and Shard(*shard)
    how["tiling"] = Tiling(run.tile, run.overlap) if run.tile is not None else None
    if run.engine == "local":
        return how | {"workers": workers}
    if run.engine != "ray":
        raise SettingError(f"--engine {run.engine}: choices: local, ray")
    if run.watch:
        raise SettingError("--watch with --engine ray: a Ray run ends with its images; use the local engine to watch")
    ray_engine.load()  # before there is an output folder
    return how | {"workers": workers, "engine": ray_engine.on_ray}


def _command_without(*flags: str) -> str:
    """The command that was typed, without these flags."""
    return shlex.join(["kshot", *(part for part in sys.argv[1:] if part not in flags)])


def _check_batches(run: o.Run, batch: int | None) -> None:
    """Raise `SettingError` for a batch that no image could join: it would be taken and do nothing."""
    alone = {"--tile": run.tile is not None, "--sequence": run.sequence, "--engine ray": run.engine == "ray"}
    given = [option for option, is_given in alone.items() if is_given]
    if given and batch is not None and batch > 1:
        raise SettingError(f"--batch-size {batch} with {given[0]}: its images are encoded one by one; leave it out")
