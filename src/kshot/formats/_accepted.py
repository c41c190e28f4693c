"""Masks of a run that a person accepted or corrected: a folder in the run's own, with the names that its masks have."""

import json
from pathlib import Path, PurePosixPath

from kshot.errors import SupportError
from kshot.formats._items import Images
from kshot.formats._pairs import index_shots, walk
from kshot.types import Shot

_MANIFEST, _SETTINGS = "manifest.jsonl", "settings.json"


def read_accepted(folder: Path) -> list[Shot] | None:
    """Shots of the masks in a folder of a run, such as OUT/accepted/a.png; None when it is not one.

    Raises `SupportError` for a mask of no image of the run, or of one that is gone, and `MaskError`.
    """
    run = folder.parent
    masks = sorted(walk(folder, lambda path: path.suffix.lower() == ".png" and path.name[0] != "."))
    if not masks or not (run / _MANIFEST).is_file() or not (run / _SETTINGS).is_file():
        return None
    try:
        settings = json.loads((run / _SETTINGS).read_text(encoding="utf-8"))
        records = [json.loads(line) for line in (run / _MANIFEST).read_text(encoding="utf-8").splitlines()]
        inputs = {PurePosixPath(*PurePosixPath(r["mask"]).parts[1:]): r["input"] for r in records if "mask" in r}
        classes, images = [str(name) for name in settings["classes"]], Images(run, Path(settings["images"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SupportError(f"{run}: {_MANIFEST} or {_SETTINGS} is damaged ({error}); run it again") from error
    pairs = [(_image_of(mask, folder, inputs, images), mask) for mask in masks]
    # A person who empties a mask says that what was found there is none of it.
    return index_shots(pairs, dict(enumerate(classes, 1)), empty=True)


def _image_of(mask: Path, folder: Path, inputs: dict[PurePosixPath, str], images: Images) -> Path:
    name = inputs.get(PurePosixPath(mask.relative_to(folder).as_posix()))
    if name is None:
        raise SupportError(f"{mask}: no image of the run in {folder.parent} has a mask of this name; leave it out")
    path = images.find(name)
    if path is None:
        raise SupportError(f"{mask}: its image {name} is no longer where the run read it; put it back")
    return path
