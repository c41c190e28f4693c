"""`kshot convert`: labels of any format into another."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kshot import _plugins
from kshot._elsewhere import installed
from kshot.cli import options as o
from kshot.cli.output import answer, say, say_lines
from kshot.cli.parsing import CONVERTED
from kshot.errors import SettingError, UnknownNameError, plural

CONVERT_EXAMPLES = """Examples:

kshot convert annotations.json --to yolo -o out/

kshot convert out/ --to labelme --polygons --tolerance 1 -o review/

kshot convert out/ --to yolo --min-score 0.6 --min-area 0.5% -o training/
"""
_ALIASES = {"png": "index_masks"}


@o.grouped()
def convert(
    *,
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of labels, or one annotation file.")],
    to: Annotated[str, typer.Option("--to", help=f"One of {CONVERTED}.", autocompletion=o.complete_converted)],
    out: o.Out,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images, when not beside the labels.")
    ] = None,
    shapes: o.Shapes,
    limits: o.Limits,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Convert labels between annotation tools; SRC is recognised by what is in it, and never written to.

    Other thresholds for a run of kshot are decided on what it saved, its scores where it has them; other labels are
    judged object by object.

    Exit code 3: something in SRC could not be read, or an image was not found; the rest is written.
    """
    from kshot.annotations.model import split_into_instances
    from kshot.formats.base import AnnotationWriter, CheckedImages, load_format, read_labels

    export = shapes.export()
    name = to.replace("-", "_")
    if to.replace("_", "-") not in _plugins.choices("formats"):  # of all formats, those that it could have been
        raise UnknownNameError("formats", to, [*CONVERTED.split(", "), *installed("formats")])
    writer = load_format(_ALIASES.get(name, name))
    if not isinstance(writer, AnnotationWriter):
        raise SettingError(f"--to {to}: labels of a folder cannot be written so; choices: {CONVERTED}")
    _check_out(source, images, out, overwrite)
    annotations, found = read_labels(source, images, limits.thresholds())
    say(f"read {found}")
    given, skipped = CheckedImages(annotations, writer), annotations.skipped
    whole = split_into_instances(replace(annotations, images=given), export.instances)
    path = writer.write_annotations(whole, out, export)
    if not given.count:
        skipped.raise_first()
    say_lines(skipped.lines, failed=bool(skipped.failures))
    facts = {"source": found, "classes": annotations.classes, "images": given.count, "written": str(path)}
    facts |= {"left_out": skipped.counts, "failed": skipped.failures, "notes": skipped.notes}
    counted = f"{plural(given.count, 'image')}, {plural(len(annotations.classes), 'class', 'classes')}"
    answer(json, facts, f"{counted} -> {path}")
    if skipped.failures:
        raise typer.Exit(3)


def _check_out(source: Path, images: Path | None, out: Path, overwrite: bool) -> None:
    inside = (source.parent if source.is_file() else source).resolve()
    if out.resolve() == inside:
        raise SettingError(
            f"-o {out}: holds the labels that are read, which are never written to; choose another folder"
        )
    if overwrite and any(each and out.resolve() in (each / "x").resolve().parents for each in (source, images)):
        raise SettingError(f"-o {out}: holds what is read, which is never written to; choose another folder")
    if out.exists() and not out.is_dir():
        raise SettingError(f"-o {out}: a file, where a folder was expected")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise SettingError(
            f"-o {out}: the folder is not empty; choose another one, or --overwrite what has the same name"
        )
