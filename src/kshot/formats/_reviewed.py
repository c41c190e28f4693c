"""Masks that a person accepted or corrected, in a folder of a run: OUT/accepted, OUT/masks, or any other one there.

What lies in `accepted` is accepted by lying there, also when it is as the run wrote it. Elsewhere, such as in a copy of
all masks of which a few were corrected, a mask that is as the run wrote it was looked at by nobody: it is no support.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kshot.annotations.pairing import ImageFinder
from kshot.annotations.shots import ShotList
from kshot.annotations.statistics import hash_of_labels
from kshot.errors import InputError, SupportError
from kshot.formats._run_files import damaged, is_run, read_run_files
from kshot.formats.base import AnnotationWriter, all_formats
from kshot.formats.index_masks import LabelNames, shots_of_masks
from kshot.io.images import image_size, read_mask
from kshot.io.manifest import Record
from kshot.io.pages_and_frames import read_images
from kshot.io.paths import file_of, walk
from kshot.io.rasters import BandSelection
from kshot.types import ImageLike, check_same_size

ACCEPTED = "accepted"


def reviewed_shots(place: Path) -> ShotList | None:
    """Shots of the masks that a person made in a folder of a run, or, of a run itself, in its `accepted` and `masks`.

    None when it is neither. A page or frame comes as its image, with the run's bands. Raises `SupportError` for a mask
    of no image of the run, or of one that is gone, and where no mask is left; `MaskError` and `ImageReadError`.
    """
    run = place if is_run(place) else place.parent
    folders = [place / ACCEPTED, place / "masks"] if run == place else [place]
    masks = {mask: folder for folder in folders if folder.is_dir() for mask in sorted(walk(folder, _is_mask))}
    # Folders of formats hold images too, and masks by other names.
    of_formats = {one.output for one in all_formats() if isinstance(one, AnnotationWriter)}
    if not masks or not is_run(run) or (run != place and place.name in of_formats):
        return None
    settings, records = read_run_files(run)
    by_name = {PurePosixPath(*PurePosixPath(r["mask"]).parts[1:]): r for r in records if "mask" in r}
    try:
        finder = ImageFinder(run, Path(settings["images"]))
        selection = BandSelection.of(**settings.get("look", {"bands": None, "stretch": None}))
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(run, error) from error
    found = {mask: _record_of(mask, folder, by_name) for mask, folder in masks.items()}
    made = {mask: is_changed(mask, record) for mask, record in found.items()}
    # Of one image in both folders, what was accepted counts.
    named = {r["input"]: m for m, r in reversed(found.items()) if made[m] or masks[m].name == ACCEPTED}
    if not named:
        raise SupportError(
            f"{place}: its masks ({len(masks)}) are as the run wrote them, so nobody has judged them; correct some, "
            f"or copy those that are right to {run / ACCEPTED}"
        )
    files = {name: _file_of(mask, name, finder) for name, mask in named.items()}
    label_names = LabelNames(dict(enumerate(map(str, settings["classes"]), 1)))
    # A person who empties a mask says that what was found there is none of it.
    shots = shots_of_masks(_pairs(named, files, selection), label_names, empty=True)
    changed = sum(made[mask] for mask in named.values())
    shots.skipped.note(
        f"{place}: {changed} changed by a person, {len(named) - changed} accepted as the run wrote them, "
        f"{len(masks) - len(named)} not taken, since nobody has judged them"
    )
    return shots


def is_changed(mask: Path, record: Record) -> bool:
    """Whether a mask has other pixels than the run wrote; one that cannot be read has."""
    try:
        return hash_of_labels(read_mask(mask, drawn=False)) != record.get("mask_sha256")
    except InputError:
        return True


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() == ".png" and path.name[0] != "."


def _record_of(mask: Path, folder: Path, by_name: dict[PurePosixPath, Record]) -> Record:
    record = by_name.get(PurePosixPath(mask.relative_to(folder).as_posix()))
    if record is None:
        raise SupportError(f"{mask}: no image of the run in {folder.parent} has a mask of this name; leave it out")
    return record


def _pairs(
    masks: dict[str, Path], files: dict[str, Path], selection: BandSelection
) -> Iterator[tuple[ImageLike, Path]]:
    """Images, which are paths, or arrays of pages and frames, with their masks, in the order of the masks' paths."""
    several = {name: path for name, path in files.items() if file_of(name) != name}
    pages_and_frames = dict(read_images(several, selection))
    for name, mask in sorted(masks.items(), key=lambda item: item[1]):
        if name in pages_and_frames:
            check_same_size(image_size(mask), pages_and_frames[name].shape[:2], f"{mask}, of {name},")
        yield pages_and_frames.get(name, files[name]), mask


def _file_of(mask: Path, name: str, finder: ImageFinder) -> Path:
    path = finder.find(file_of(name))
    if path is None:
        raise SupportError(f"{mask}: its image {file_of(name)} is no longer where the run read it; put it back")
    return path
