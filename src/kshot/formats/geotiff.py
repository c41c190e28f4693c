"""GeoTIFF: index masks with the reference system, transform and nodata of their images. Needs the extra `geo`."""

import json
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
from kshot.io.georeference import Georeference, georeference_of, load_rasterio, quiet
from kshot.io.paths import page_of
from kshot.io.rasters import Raster
from kshot.io.valid_pixels import valid_pixels
from kshot.types import IGNORE, MAX_CLASSES

_BLOCK = 256


class Geotiff(AnnotationWriter, RowWriter):
    """A .tif per image: one band of labels with VOC's colours, the names of the classes in the tag `classes`.

    255 is the file's nodata: pixels where the image has no data, and those that nobody decided on.
    """

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
            path, source, page = out / self.path_of(image.stem), image.path or image.part_of, page_of(image.name)
            place = georeference_of(source, image.size_hw[0], page)
            with _opened(path, image.size_hw, place, annotations.classes, {}) as file:
                file.write(_with_nodata(image.labels(annotations.classes), valid_pixels(source, page)), 1)
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
        crs, transform = source.georeference
        place = Georeference(crs, tuple(transform)[:6], source.size_hw[0])
        with _opened(path, source.size_hw, place, classes, blocks) as file:

            def write(labels: NDArray[np.uint8]) -> None:
                nonlocal waiting, top
                waiting = np.concatenate([waiting, labels])
                last = top + len(waiting) == source.size_hw[0]
                whole = len(waiting) if last else len(waiting) // _BLOCK * _BLOCK
                if whole:
                    rows, columns = slice(top, top + whole), slice(0, source.size_hw[1])
                    labels = _with_nodata(waiting[:whole], source.valid(rows, columns))
                    file.write(labels, 1, window=((top, top + whole), (0, source.size_hw[1])))
                waiting, top = waiting[whole:], top + whole

            yield write


def _with_nodata(labels: NDArray[np.uint8], valid_mask: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Labels with 255 where an image has no data; what a person labelled there stays."""
    return labels if valid_mask is None else np.where(valid_mask | (labels > 0), labels, np.uint8(IGNORE))


@contextmanager
def _opened(
    path: Path, size_hw: tuple[int, int], place: Georeference, classes: Sequence[str], layout: Mapping[str, Any]
) -> Iterator[Any]:
    """A new file of one band of labels, with its colours, class names and place."""
    rasterio = load_rasterio()
    colours = {label: (*colour, 255) for label, colour in enumerate(palette().tolist())}
    names = {label: name for label, name in enumerate(classes, start=1) if label <= MAX_CLASSES}
    shape = {"height": size_hw[0], "width": size_hw[1], "count": 1, "dtype": "uint8", "nodata": IGNORE}
    where = {"crs": place.crs, "transform": rasterio.Affine(*place.transform)}
    with atomic_path(path) as beside, quiet():
        try:
            with rasterio.open(beside, "w", driver="GTiff", compress="deflate", **where, **shape, **layout) as file:
                file.write_colormap(1, colours)
                file.update_tags(classes=json.dumps(names))
                yield file
        except rasterio.errors.RasterioError as error:
            raise OutputError(f"{path}: cannot be written ({error})") from error


FORMAT = Geotiff()
