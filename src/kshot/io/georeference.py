"""The place on earth of an image: its reference system and its transform from pixels. Needs the extra `geo`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import OutputError
from kshot.io import tiff
from kshot.io.ground import pixel_areas

Transform = tuple[float, float, float, float, float, float]
PIXELS: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The transform that leaves pixels as they are."""


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of an image lie."""

    crs: Any = None
    """rasterio's reference system; None where there is none."""
    transform: Transform = PIXELS
    """(a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f."""
    height: int = 0
    """Rows of the image."""

    @cached_property
    def pixel_areas(self) -> NDArray[np.float64] | None:
        """(height,) square metres of a pixel in each row; None where that is not known, see `ground.pixel_areas`."""
        return pixel_areas(self.crs, self.transform, self.height) if self.crs else None


def georeference_of(path: Path | None, height: int, page: int = 1) -> Georeference:
    """The place of an image file that GDAL reads; of others, and without a file, none. Raises `OutputError`.

    page: from 1, of a TIFF with several; one that has no place of its own has that of the first.
    """
    rasterio = load_rasterio()
    if path is None:
        return Georeference(height=height)
    pages = tiff.pages(path) if page > 1 else ()
    own = [f"GTIFF_DIR:off:{pages[page - 1].offset}:{path}"] if page <= len(pages) else []
    try:
        for name in own:
            with quiet(), rasterio.open(name, driver="GTiff") as source:
                if source.crs:
                    return Georeference(source.crs, tuple(source.transform)[:6], height)
        with quiet(), rasterio.open(path) as source:
            return Georeference(source.crs, tuple(source.transform)[:6], height)
    except rasterio.errors.RasterioIOError:  # an image that Pillow reads and GDAL does not
        return Georeference(height=height)


def load_rasterio() -> Any:
    """rasterio. Raises `OutputError` with the way to get it."""
    try:
        import rasterio
        import rasterio.warp
    except ImportError as error:
        raise OutputError("GeoTIFF, GeoJSON and GeoPackage need rasterio; pip install 'kshot[geo]'") from error
    return rasterio


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning that an image has no place on earth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", load_rasterio().errors.NotGeoreferencedWarning)
        yield
