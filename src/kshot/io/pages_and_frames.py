"""Pages of TIFFs and frames of videos by the names that runs give them: scan.tif#page0002, film.mp4#000010."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageReadError
from kshot.io import limits
from kshot.io.images import read_image
from kshot.io.paths import PAGE_OR_FRAME
from kshot.io.rasters import BandSelection
from kshot.io.videos import frames


def read_images(
    files: Mapping[str, Path], selection: BandSelection, max_pixels: int | None = None
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each name with its image (h, w, 3); a video is decoded once for all of its frames.

    files: by the name, the file that it is of. Raises `ImageReadError`, also for a frame that a video does not have.
    """
    wanted: dict[Path, dict[int, str]] = {}
    for name, path in files.items():
        found = PAGE_OR_FRAME.search(name)
        if found and not found["page"]:
            wanted.setdefault(path, {})[int(found["number"])] = name
        else:
            page = int(found["number"]) if found else 1
            yield name, read_image(path, max_pixels=max_pixels, page=page, selection=selection)
    for path, names in wanted.items():
        for frame in frames(path):
            if frame.number in names:
                yield names.pop(frame.number), frame.image(limits.PIXELS.value if max_pixels is None else max_pixels)
            if not names:
                break
        if names:
            raise ImageReadError(f"{path}: has no frame {min(names)}; put back the video that the run read")
