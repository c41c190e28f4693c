"""Masks of a run that a person accepted or corrected: a folder in the run's own, with the names that its masks have."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kshot.annotations.checked_json import Images
from kshot.annotations.pairing import index_shots
from kshot.errors import SupportError
from kshot.io.images import image_size
from kshot.io.manifest import MANIFEST, SETTINGS
from kshot.io.pages_and_frames import pictures
from kshot.io.paths import file_of, walk
from kshot.io.rasters import Look
from kshot.types import ImageLike, Shot, check_same_size


def read_accepted(folder: Path) -> list[Shot] | None:
    """Shots of the masks in a folder of a run, such as OUT/accepted/a.png; None when it is not one.

    A page or frame comes as its picture, with the run's bands. Raises `SupportError` for a mask of no image of the run,
    or of one that is gone, `MaskError` and `ImageReadError`.
    """
    run = folder.parent
    masks = sorted(walk(folder, lambda path: path.suffix.lower() == ".png" and path.name[0] != "."))
    if not masks or not (run / MANIFEST).is_file() or not (run / SETTINGS).is_file():
        return None
    try:
        settings = json.loads((run / SETTINGS).read_text(encoding="utf-8"))
        records = [json.loads(line) for line in (run / MANIFEST).read_text(encoding="utf-8").splitlines()]
        inputs = {PurePosixPath(*PurePosixPath(r["mask"]).parts[1:]): r["input"] for r in records if "mask" in r}
        classes, images = [str(name) for name in settings["classes"]], Images(run, Path(settings["images"]))
        look = Look.of(**settings.get("look", {"bands": None, "stretch": None}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SupportError(f"{run}: {MANIFEST} or {SETTINGS} is damaged ({error}); run it again") from error
    named = {mask: _name_of(mask, folder, inputs) for mask in masks}
    pairs = _pairs(named, {name: _file_of(mask, name, images) for mask, name in named.items()}, look)
    # A person who empties a mask says that what was found there is none of it.
    return index_shots(pairs, dict(enumerate(classes, 1)), empty=True)


def _pairs(named: dict[Path, str], files: dict[str, Path], look: Look) -> Iterator[tuple[ImageLike, Path]]:
    """Masks with their images, which are paths, or pictures of pages and frames."""
    several = {name: path for name, path in files.items() if file_of(name) != name}
    pieces = dict(pictures(several, look))
    for mask, name in named.items():
        if name in pieces:
            check_same_size(image_size(mask), pieces[name].shape[:2], f"{mask}, of {name},")
        yield pieces.get(name, files[name]), mask


def _name_of(mask: Path, folder: Path, inputs: dict[PurePosixPath, str]) -> str:
    name = inputs.get(PurePosixPath(mask.relative_to(folder).as_posix()))
    if name is None:
        raise SupportError(f"{mask}: no image of the run in {folder.parent} has a mask of this name; leave it out")
    return name


def _file_of(mask: Path, name: str, images: Images) -> Path:
    path = images.find(file_of(name))
    if path is None:
        raise SupportError(f"{mask}: its image {file_of(name)} is no longer where the run read it; put it back")
    return path
