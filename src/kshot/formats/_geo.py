"""What the two geographic formats share: rasterio, and where an image lies. Needs the extra `geo`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kshot.errors import OutputError


def load() -> Any:
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
    rasterio = load()
    if path is None:
        return None, rasterio.Affine.identity()
    try:
        with quiet(), rasterio.open(path) as source:
            return source.crs, source.transform
    except rasterio.errors.RasterioIOError:  # a picture that Pillow reads and GDAL does not
        return None, rasterio.Affine.identity()


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning that a picture has no place on earth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", load().errors.NotGeoreferencedWarning)
        yield
