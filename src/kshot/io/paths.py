"""Which files a folder, pattern or name means."""

import glob
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from kshot.errors import InputError
from kshot.io.images import SUFFIXES
from kshot.io.ome_zarr import SUFFIX as ZARR
from kshot.io.ome_zarr import is_zarr
from kshot.io.videos import SUFFIXES as VIDEOS

_SUFFIXES = "|".join(re.escape(suffix) for suffix in sorted({".tif", ".tiff", ZARR, *VIDEOS}))
_HOLDS_SEVERAL = re.compile(f"({_SUFFIXES})$", re.I)
# What runs call a page or plane, scan.tif#page0002, and a frame, film.mp4#000010.
PAGE_OR_FRAME = re.compile(f"({_SUFFIXES})#(?P<page>page)?(?P<number>\\d+)$", re.I)


def visible(folder: Path) -> list[Path]:
    """Sorted entries of a folder without the hidden ones; none when it is no folder."""
    return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def image_files(folder: Path) -> list[Path]:
    """Sorted image files directly in a folder."""
    return [path for path in visible(folder) if is_image(path) and path.is_file()]


def is_image(path: Path, also: Collection[str] = ()) -> bool:
    """Whether the name is that of an image, or has another of these suffixes, and is not hidden."""
    suffix = path.suffix.lower()
    return (suffix in SUFFIXES or suffix in also) and path.name[0] != "."


def walk(folder: Path, wanted: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Files in a folder and all below it, images by default; each real folder once, so that looped links end.

    An OME-Zarr counts as a file: nothing in it is looked at.
    """
    wanted = wanted or is_image
    seen = {folder.resolve()}
    for place, below, files in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(below):
            real = (Path(place) / name).resolve()
            if is_zarr(Path(place) / name):
                files.append(name)
            elif name[0] != "." and real not in seen:
                seen.add(real)
                kept.append(name)
        below[:] = kept
        yield from (path for path in (Path(place) / name for name in files) if wanted(path) and is_there(path))


def is_there(path: Path) -> bool:
    """Whether a path is a file, or an OME-Zarr, which is a folder."""
    return path.is_file() or is_zarr(path)


def list_images(where: str | Path, also: Collection[str] = ()) -> list[Path]:
    """Image files of a folder and all below it, of a glob pattern, or the one file; sorted by their path.

    also: suffixes that count beside those of images.
    Hidden files and folders are skipped; a folder's links are followed, each real folder once, a pattern's `**` follows
    none. Raises `InputError` when there is none.
    """
    path = Path(where)
    if is_there(path):
        return [path]
    if path.is_dir():
        found = list(walk(path, partial(is_image, also=also)))
    elif glob.has_magic(str(where)):
        found = _matches(str(where), also)
    else:
        raise InputError(f"{where}: no such file or folder; check the path")
    if not found:
        raise InputError(f"{where}: no image there; looked for {', '.join(sorted(SUFFIXES.union(also)))}")
    return sorted(found, key=lambda image: image.as_posix())


def _matches(pattern: str, also: Collection[str]) -> list[Path]:
    """Image files that match; `**` enters no linked folder, as links may lead in circles."""
    base = root_of(Path(pattern))
    rest = Path(pattern).parts[len(base.parts) :]
    try:
        found = [path for path in base.glob("/".join(rest)) if is_image(path, also) and is_there(path)]
    except ValueError as error:
        raise InputError(f"{pattern}: not a pattern ({error})") from error
    return [path for path in found if not any(part[0] == "." for part in path.relative_to(base).parts)]


def root_of(images: Path) -> Path:
    """The folder that names of images are relative to; of a glob pattern, the part before the first wildcard."""
    if images.is_dir() and not is_zarr(images):
        return images
    parts = images.parent.parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def may_hold_several(name: str) -> bool:
    """Whether the name is that of a TIFF, an OME-Zarr or a video, whose pages, planes or frames are images."""
    return _HOLDS_SEVERAL.search(name) is not None


def file_of(name: str) -> str:
    """The file that a page or frame is of; any other name as it is."""
    return PAGE_OR_FRAME.sub(r"\1", name)


def page_of(name: str) -> int:
    """The number of the page that a name says, from 1; 1 for any other name."""
    found = PAGE_OR_FRAME.search(name)
    return int(found["number"]) if found and found["page"] else 1


def user_cache() -> Path:
    """Where this system keeps what can be made again."""
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]) / "kshot"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser() / "kshot" / "cache"
    return Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser() / "kshot"
