"""GeoTIFF: index masks with the reference system and the transform of their images. Needs the extra `geo`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.model import Export, LabelTree
from kshot.errors import OutputError
from kshot.formats import _geo
from kshot.formats.png import palette
from kshot.io.atomic import atomic_path
from kshot.io.rasters import Raster
from kshot.types import MAX_CLASSES

FOLDER_OUT = NAME = "geotiff"
SUFFIX = ".tif"
_BLOCK = 256


def prepare() -> None:
    """Raise `OutputError` before a run rather than at its end when rasterio is missing."""
    _geo.load()


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/geotiff/<stem>.tif, one band of labels with VOC's colours; returns the folder.

    The names of the classes are the tag `classes`. An image without a place on earth gives a plain TIFF. Lossless but
    for scores. Raises `OutputError`.
    """
    _geo.load()
    for image in tree.images:
        place = _geo.place_of(image.path)
        path = out / FOLDER_OUT / f"{image.stem}{SUFFIX}"
        with _opened(path, image.size_hw, place, tree.classes, {}) as file:
            file.write(image.labels(tree.classes), 1)
    return out / FOLDER_OUT


@contextmanager
def rows(path: Path, source: Raster, classes: Sequence[str]) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """A GeoTIFF that grows by rows of labels, (r, w) uint8 from the top. Raises `OutputError`.

    It has the place of its source. Blocks are written once and in order, so the same labels give the same bytes.
    """
    blocks = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "bigtiff": "if_safer"}
    waiting = np.zeros((0, source.size_hw[1]), np.uint8)
    top = 0
    with _opened(path, source.size_hw, source.place, classes, blocks) as file:

        def write(labels: NDArray[np.uint8]) -> None:
            nonlocal waiting, top
            waiting = np.concatenate([waiting, labels])
            last = top + len(waiting) == source.size_hw[0]
            whole = len(waiting) if last else len(waiting) // _BLOCK * _BLOCK
            if whole:
                file.write(waiting[:whole], 1, window=((top, top + whole), (0, source.size_hw[1])))
            waiting, top = waiting[whole:], top + whole

        yield write


@contextmanager
def _opened(
    path: Path, size_hw: tuple[int, int], place: tuple[Any, Any], classes: Sequence[str], layout: Mapping[str, Any]
) -> Iterator[Any]:
    """A new file of one band of labels, with its colours, class names and place."""
    rasterio = _geo.load()
    colours = {label: (*colour, 255) for label, colour in enumerate(palette().tolist())}
    names = {label: name for label, name in enumerate(classes, start=1) if label <= MAX_CLASSES}
    shape = {"height": size_hw[0], "width": size_hw[1], "count": 1, "dtype": "uint8"}
    how = {"driver": "GTiff", "crs": place[0], "transform": place[1], "compress": "deflate", **shape, **layout}
    with atomic_path(path) as beside, _geo.quiet():
        try:
            with rasterio.open(beside, "w", **how) as file:
                file.write_colormap(1, colours)
                file.update_tags(classes=json.dumps(names))
                yield file
        except rasterio.errors.RasterioError as error:
            raise OutputError(f"{path}: cannot be written ({error})") from error
