"""`kshot convert`: labels of any format into another."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.annotations.model import split_into_instances
from kshot.cli import options as o
from kshot.cli.output import print_json, say
from kshot.errors import SettingError, UnknownNameError
from kshot.formats.base import AnnotationWriter, load_format, read_labels
from kshot.segmenter import names

EXAMPLES = """Examples:

kshot convert annotations.json --to yolo -o out/

kshot convert out/ --to labelme --polygons --tolerance 1 -o review/
"""
_ALIASES = {"png": "index_masks"}


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of labels, or one annotation file.")],
    to: Annotated[str, typer.Option("--to", help=f"One of {o.CONVERTED}.")],
    out: o.Out,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images, when not beside the labels.")
    ] = None,
    instances: o.Instances = None,
    polygons: o.Polygons = False,
    tolerance: o.Tolerance = 0.0,
    copy_images: o.CopyImages = False,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Convert labels between annotation tools; SRC is recognised by what is in it, and never written to."""
    how = o.make_export(instances, polygons, tolerance, copy_images)
    name = to.replace("-", "_")
    if to.replace("_", "-") not in names("formats"):  # of all formats, those that it could have been
        raise UnknownNameError("formats", to, o.CONVERTED.split(", "))
    writer = load_format(_ALIASES.get(name, name))
    if not isinstance(writer, AnnotationWriter):
        raise SettingError(f"--to {to}: labels of a folder cannot be written so; choices: {o.CONVERTED}")
    _check_out(source, out, overwrite)
    annotations, found = read_labels(source, images)
    say(f"read {found}")
    path = writer.write_annotations(split_into_instances(annotations, how.instances), out, how)
    facts = {"source": found, "classes": annotations.classes, "images": len(annotations.images), "written": str(path)}
    if json:
        print_json(facts)
    else:
        typer.echo(f"{len(annotations.images)} images, {len(annotations.classes)} classes -> {path}")


def _check_out(source: Path, out: Path, overwrite: bool) -> None:
    inside = (source.parent if source.is_file() else source).resolve()
    if out.resolve() == inside:
        raise SettingError(
            f"-o {out}: holds the labels that are read, which are never written to; choose another folder"
        )
    if out.exists() and not out.is_dir():
        raise SettingError(f"-o {out}: a file, where a folder was expected")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise SettingError(
            f"-o {out}: the folder is not empty; choose another one, or --overwrite what has the same name"
        )
