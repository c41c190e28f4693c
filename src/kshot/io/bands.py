"""The values of an image as they are stored, all bands and bits of them: for measuring, not for looking at."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from kshot.errors import ImageReadError
from kshot.io import limits, ome_zarr, rasters, tiff
from kshot.io.images import name_of, opened_image, upright


def read_bands(path: Path | bytes, page: int = 1) -> NDArray[Any]:
    """(h, w, b) values, as displayed; alpha is no band, and colours of a palette are three.

    Channels of an OME-Zarr are bands. TIFFs that Pillow would cut to 8 bits or four bands are read by rasterio.
    Raises `ImageReadError`s.
    """
    if isinstance(path, Path) and ome_zarr.is_zarr(path):
        return np.moveaxis(ome_zarr.opened(path).plane(page), 0, -1)
    pages = tiff.pages(path)
    of_page = pages[page - 1] if pages else None
    if of_page and not of_page.damaged and (of_page.bands > 4 or (of_page.bands > 1 and of_page.bits > 8)):
        return _by_rasterio(path, of_page)
    try:
        with opened_image(path, limits.PIXELS.value, of_page) as opened:
            image = upright(opened)
            if image.mode not in {"L", "RGB", "F", "1"} and not image.mode.startswith("I"):
                image = image.convert("L" if image.mode == "LA" else "RGB")
            values = np.array(image)
    except ImageReadError as error:
        if of_page is None or not isinstance(error.__cause__, UnidentifiedImageError):
            raise
        return _by_rasterio(path, of_page)
    return values[..., None] if values.ndim == 2 else values


def _by_rasterio(path: Path | bytes, page: tiff.Page) -> NDArray[Any]:
    with rasters.opened(path, page, rasters.BandSelection(), name_of(path)) as raster:
        height, width = raster.size_hw
        return np.moveaxis(raster.stored(slice(0, height), slice(0, width)), 0, -1)
