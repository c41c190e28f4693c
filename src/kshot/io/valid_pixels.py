"""Which pixels of a TIFF hold data: all but those that GDAL's nodata value, a mask or a map's alpha band leaves out."""

import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.io import rasters, tiff
from kshot.io.rasters import BandSelection

log = logging.getLogger(__name__)


def valid_pixels(image: Any, page: int = 1) -> NDArray[np.bool_] | None:
    """(h, w), as displayed: whether a pixel of a TIFF (path or bytes) holds data; None where all do, and of others.

    Of several bands one with data is enough, as GDAL has it. A mask beside the file (`x.tif.msk`) counts too. Without
    rasterio all pixels do, which is said once. Raises `ImageReadError`.
    """
    of_page = page_with_nodata(image, page)
    if of_page is None:
        return None
    if find_spec("rasterio") is None:
        _warn(str(image) if isinstance(image, str | Path) else "the image given as bytes")
        return None
    with rasters.opened(image, of_page, BandSelection(), str(image)[:200]) as raster:
        valid = raster.valid(slice(0, raster.size_hw[0]), slice(0, raster.size_hw[1]))
    if valid is None or valid.all():
        return None
    return np.ascontiguousarray(rasters.turned(valid, of_page.orientation))


def page_with_nodata(image: Any, page: int = 1) -> tiff.Page | None:
    """The page of a TIFF that may have pixels without data, by its tags alone; None of all other images."""
    if not isinstance(image, str | Path | bytes | bytearray | memoryview):
        return None
    pages = tiff.pages(image)
    if not 1 <= page <= len(pages) or pages[page - 1].damaged:
        return None
    beside = isinstance(image, str | Path) and Path(f"{image}.msk").is_file()
    return pages[page - 1] if pages[page - 1].nodata or beside else None


@cache
def _warn(name: str) -> None:
    log.warning("%s: marks pixels without data, which only rasterio knows; pip install 'kshot[geo]'", name)
