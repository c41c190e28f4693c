"""Labels of the page in another tool's format: what `kshot convert` does, with its command line."""

import shlex
from dataclasses import replace
from pathlib import Path

from kshot.annotations.model import Export, as_objects, split_into_instances
from kshot.errors import SettingError
from kshot.formats.base import AnnotationWriter, CheckedImages, load_format
from kshot.formats.kshot_run import annotations_of_run
from kshot.io.manifest import FAILED
from kshot.serve.schemas import ExportIn, ExportOut, Format
from kshot.serve.workspace import Workspace

FOLDER = "export"
_ALIASES = {"png": "index_masks"}
_ABOUT = {
    "png": "Index masks, with images and classes.json",
    "coco": "One JSON file, run lengths or polygons",
    "yolo": "YOLO segmentation: text files and data.yaml",
    "voc": "PASCAL VOC folders",
    "labelme": "A JSON file beside each image",
    "label_studio": "Label Studio predictions, brush masks",
    "cvat": "CVAT for images 1.1",
    "geotiff": "GeoTIFF with the image's coordinates",
    "geojson": "GeoJSON polygons in longitude and latitude",
    "geopackage": "One GeoPackage of all objects, for GIS",
}


def formats(out: Path) -> list[Format]:
    """The formats that can be written here, with the command that does it."""
    found = []
    for name in _ABOUT:
        writer = load_format(_ALIASES.get(name, name))
        if isinstance(writer, AnnotationWriter):
            option = name.replace("_", "-")
            found.append(Format(name=option, about=_ABOUT[name], command=command_of(ExportIn(format=option), out)))
    return found


def command_of(asked: ExportIn, out: Path) -> str:
    """The command line that writes the same."""
    parts = ["kshot", "convert", str(out), "--to", asked.format, "-o", str(_place(asked, out))]
    parts += ["--instances", asked.instances] if asked.instances else []
    parts += ["--polygons"] if asked.polygons else []
    parts += ["--tolerance", f"{asked.tolerance:g}"] if asked.tolerance else []
    parts += ["--copy-images"] if asked.copy_images else []
    return shlex.join(parts + (["--overwrite"] if asked.overwrite else []))


def export(workspace: Workspace, asked: ExportIn) -> ExportOut:
    """Write the masks of all images, or of the accepted ones, into OUT/export/FORMAT.

    Raises `UnknownNameError`, `SettingError` where something is there already, and `OutputError`.
    """
    name = asked.format.replace("-", "_")
    if name not in {one.name.replace("-", "_") for one in formats(workspace.out)}:
        raise SettingError(f"no format {asked.format!r} to export; {', '.join(_ABOUT)}")
    writer, place = load_format(_ALIASES.get(name, name)), _place(asked, workspace.out)
    if not isinstance(writer, AnnotationWriter):
        raise SettingError(f"{asked.format}: writes no labels of a folder")
    if place.is_dir() and any(place.iterdir()) and not asked.overwrite:
        raise SettingError(f"{place}: holds an earlier export; tick 'Replace', or rename that folder")
    _write_waiting(workspace)
    with workspace.folder.lock:
        records = [record for record in workspace.folder.records.values() if record["status"] != FAILED]
        accepted = {workspace.images.names[i] for i, one in workspace.folder.labels.items() if one.accepted is not None}
        classes = workspace.folder.names
    chosen = [record for record in records if not asked.accepted_only or record["input"] in accepted]
    if not chosen:
        raise SettingError("no mask to export yet: draw on an image, or accept one")
    options = Export(asked.instances, asked.polygons, asked.tolerance, asked.copy_images)
    images = workspace.images
    annotations = as_objects(annotations_of_run(workspace.out, chosen, classes, images.root))
    given = CheckedImages(annotations, writer)
    whole = split_into_instances(replace(annotations, images=given), options.instances)
    path = writer.write_annotations(whole, place, options)
    notes = list(annotations.skipped.lines)
    if left := len(workspace.images) - len(workspace.folder.records):
        notes.append(f"{left} images have not followed yet; export again when they have")
    return ExportOut(path=str(path), images=given.count, command=command_of(asked, workspace.out), notes=notes)


def _write_waiting(workspace: Workspace) -> None:
    """Write the masks of accepted images that are drawn on again; else they wait for the background, and for a task."""
    folder, names = workspace.folder, workspace.images.names
    with folder.lock:
        accepted = [index for index, one in folder.labels.items() if one.accepted is not None]
        waiting = [index for index in accepted if names[index] not in folder.records]
    for index in waiting:
        workspace.record_decided(index)


def _place(asked: ExportIn, out: Path) -> Path:
    return out / FOLDER / asked.format
