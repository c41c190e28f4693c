"""Pages of TIFFs and frames of videos by the names that runs give them: scan.tif#page0002, film.mp4#000010."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageReadError
from kshot.formats.images import MAX_PIXELS, read_image
from kshot.formats.rasters import Look
from kshot.formats.videos import SUFFIXES as VIDEOS
from kshot.formats.videos import frames

_SEVERAL = "|".join(re.escape(suffix) for suffix in sorted({".tif", ".tiff", *VIDEOS}))
_MANY, _PIECE = re.compile(f"({_SEVERAL})$", re.I), re.compile(f"({_SEVERAL})#(page)?(\\d+)$", re.I)


def file_of(name: str) -> str:
    """The file that a page or frame is of; any other name as it is."""
    return _PIECE.sub(r"\1", name)


def pictures(
    files: Mapping[str, Path], look: Look, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each name with its picture (h, w, 3); a video is decoded once for all of its frames.

    files: by the name, the file that it is of. Raises `ImageReadError`, also for a frame that a video does not have.
    """
    wanted: dict[Path, dict[int, str]] = {}
    for name, path in files.items():
        piece = _PIECE.search(name)
        if piece and not piece[2]:
            wanted.setdefault(path, {})[int(piece[3])] = name
        else:
            yield name, read_image(path, max_pixels=max_pixels, page=int(piece[3]) if piece else 1, look=look)
    for path, names in wanted.items():
        for frame in frames(path):
            if frame.number in names:
                yield names.pop(frame.number), frame.picture(max_pixels)
            if not names:
                break
        if names:
            raise ImageReadError(f"{path}: has no frame {min(names)}; put back the video that the run read")


def unique_stems(names: Iterable[str]) -> dict[str, str]:
    """{name: stem}: without the suffix, unless a.jpg stands beside a.png and both have to keep theirs.

    Of a page or frame, such as a.tif#page0002 or a.mp4#000010, it is a/page0002 or a/000010; what may hold several
    keeps its suffix beside a folder of its name too.
    """
    named = list(names)
    files = {name: file_of(name) for name in named}
    stems = {file: PurePosixPath(file).with_suffix("").as_posix() for file in files.values()}
    counts = Counter(stems.values())
    folders = {parent.as_posix() for file in stems for parent in PurePosixPath(file).parents}
    kept = {file for file, stem in stems.items() if counts[stem] > 1 or (stem in folders and _MANY.search(file))}
    return {
        name: (file if file in kept else stems[file]) + name.removeprefix(file).replace("#", "/")
        for name, file in files.items()
    }
