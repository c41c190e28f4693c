"""GeoTIFF: index masks with the reference system and the transform of their images. Needs the extra `geo`."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export
from kshot.errors import OutputError
from kshot.formats.base import AnnotationWriter, RowWriter
from kshot.formats.png import palette
from kshot.io.atomic import atomic_path
from kshot.io.rasters import Raster
from kshot.types import MAX_CLASSES

_BLOCK = 256


class Geotiff(AnnotationWriter, RowWriter):
    """A .tif per image: one band of labels with VOC's colours, the names of the classes in the tag `classes`."""

    output = "geotiff"
    holds = frozenset({"ignored areas"})

    def prepare(self) -> None:
        """Raise `OutputError` when rasterio is missing."""
        load_rasterio()

    def path_of(self, stem: str) -> str:
        """Where the file of an image lies, relative to the output folder."""
        return f"{self.output}/{stem}.tif"

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/geotiff/<stem>.tif; returns the folder.

        An image without a place on earth gives a plain TIFF. Lossless but for scores. Raises `OutputError`.
        """
        for image in annotations.images:
            path, place = out / self.path_of(image.stem), place_of(image.path)
            with _opened(path, image.size_hw, place, annotations.classes, {}) as file:
                file.write(image.labels(annotations.classes), 1)
        return out / self.output

    @contextmanager
    def open_rows(
        self, path: Path, source: Raster, classes: Sequence[str]
    ) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
        """A GeoTIFF that has the place of its source.

        Blocks are written once and in order, so the same labels give the same bytes.
        """
        blocks = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "bigtiff": "if_safer"}
        waiting = np.zeros((0, source.size_hw[1]), np.uint8)
        top = 0
        with _opened(path, source.size_hw, source.georeference, classes, blocks) as file:

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
    rasterio = load_rasterio()
    colours = {label: (*colour, 255) for label, colour in enumerate(palette().tolist())}
    names = {label: name for label, name in enumerate(classes, start=1) if label <= MAX_CLASSES}
    shape = {"height": size_hw[0], "width": size_hw[1], "count": 1, "dtype": "uint8"}
    how = {"driver": "GTiff", "crs": place[0], "transform": place[1], "compress": "deflate", **shape, **layout}
    with atomic_path(path) as beside, _quiet():
        try:
            with rasterio.open(beside, "w", **how) as file:
                file.write_colormap(1, colours)
                file.update_tags(classes=json.dumps(names))
                yield file
        except rasterio.errors.RasterioError as error:
            raise OutputError(f"{path}: cannot be written ({error})") from error


def load_rasterio() -> Any:
    """rasterio. Raises `OutputError` with the way to get it."""
    try:
        import rasterio
        import rasterio.features
        import rasterio.warp
    except ImportError as error:
        raise OutputError("GeoTIFF and GeoJSON need rasterio; pip install 'kshot[geo]'") from error
    return rasterio


def place_of(path: Path | None) -> tuple[Any, Any]:
    """(reference system, transform from pixels) of an image; (None, identity) where it has none."""
    rasterio = load_rasterio()
    if path is None:
        return None, rasterio.Affine.identity()
    try:
        with _quiet(), rasterio.open(path) as source:
            return source.crs, source.transform
    except rasterio.errors.RasterioIOError:  # an image that Pillow reads and GDAL does not
        return None, rasterio.Affine.identity()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without rasterio's warning that an image has no place on earth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", load_rasterio().errors.NotGeoreferencedWarning)
        yield


FORMAT = Geotiff()
