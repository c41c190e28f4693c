"""How large a pixel is: as somebody wrote it, or as the file of an image says."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import KshotError, SettingError
from kshot.io import ome_zarr, rasters, tiff
from kshot.io.georeference import georeference_of
from kshot.io.ground import is_mercator
from kshot.io.images import opened_image

METRES = {"nm": 1e-9, "um": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3, "in": 0.0254}
"""Units, each as many metres."""
_SPELLINGS = {"µm": "um", "μm": "um", "micron": "um", "microns": "um", "inch": "in", "metre": "m", "meter": "m"}
_DESCRIPTION, _X_RESOLUTION, _RESOLUTION_UNIT = 270, 282, 296  # tags of a TIFF
_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"


@dataclass(frozen=True)
class PixelSize:
    """The side of a square pixel."""

    side: float
    """Above 0, in `unit`."""
    unit: str
    """One of `METRES`."""

    @classmethod
    def parse(cls, text: str) -> "PixelSize":
        """From "0.65um", "2 mm" or "300dpi" (pixels per inch). Raises `SettingError`."""
        found = re.fullmatch(rf"\s*({_NUMBER})\s*([^\s\d]*)\s*", text)
        said = f"pixel_size (--pixel-size) {text!r}"
        expected = f"expected a number and its unit, such as 0.65um ({', '.join(METRES)}), or 300dpi"
        if found is None or float(found[1]) <= 0:
            raise SettingError(f"{said}: {expected}")
        if not found[2]:
            raise SettingError(f"{said}: a number without a unit; {expected}")
        if found[2].lower() == "dpi":
            return cls(25.4 / float(found[1]), "mm")
        unit = _unit(found[2])
        if unit is None:
            raise SettingError(f"{said}: no unit {found[2]!r}; {expected}")
        return cls(float(found[1]), unit)

    def in_unit(self, unit: str) -> float:
        """The side in another unit of `METRES`."""
        return self.side if unit == self.unit else self.side * METRES[self.unit] / METRES[unit]


def pixel_size_of(path: Path, page: int = 1) -> PixelSize | None:
    """What a TIFF says of its pixels: OME's or ImageJ's size, a map's projected system, or pixels per centimetre.

    Of an OME-Zarr what its scale says, in micrometres.

    Of pixels that are not square it is the side of a square of the same area. None without any, or for other files:
    their dots per inch are mostly for printers and say nothing of what was photographed.
    """
    if ome_zarr.is_zarr(path):
        sides = ome_zarr.opened(path).metres
        return _checked((sides["x"] * sides["y"]) ** 0.5 / METRES["um"], "um") if {"x", "y"} <= set(sides) else None
    pages = tiff.pages(path)
    if not pages or page > len(pages):
        return None
    try:
        with opened_image(path, rasters.MOST_PIXELS) as opened:
            tags: Any = getattr(opened, "tag_v2", {})
            text, per_unit, kind = (tags.get(tag) for tag in (_DESCRIPTION, _X_RESOLUTION, _RESOLUTION_UNIT))
    except KshotError:  # bands that Pillow does not read; a map says its size itself
        text, per_unit, kind = None, None, None
    # Pillow takes the bytes for Latin 1; OME's are UTF-8.
    said = str(text or "").encode("latin-1", "replace").decode("utf-8", "replace")
    return _of_description(said, per_unit) or _of_map(path, pages[page - 1]) or _of_tags(per_unit, kind)


def ground_of(path: Path | None, height: int, page: int = 1) -> NDArray[np.float64] | None:
    """(height,) square metres of a pixel in each row of a map in degrees, or of Mercator's; None of all others."""
    if path is None or not tiff.pages(path) or find_spec("rasterio") is None:
        return None
    place = georeference_of(path, height, page)
    if place.crs is None or not (place.crs.is_geographic or is_mercator(place.crs)):
        return None
    return place.pixel_areas


def _of_description(text: str, per_unit: Any) -> PixelSize | None:
    """What OME-XML or ImageJ wrote."""
    sides = [re.search(rf'PhysicalSize{axis}="({_NUMBER})"', text) for axis in "XY"]
    if sides[0]:
        named = re.search(r'PhysicalSizeXUnit="([^"]+)"', text)
        x, y = (float(side[1]) if side else float(sides[0][1]) for side in sides)
        return _checked((x * y) ** 0.5, _unit(named[1]) if named else "um")
    named = re.search(r"^unit=(\S+)", text, re.M)
    if text.startswith("ImageJ=") and named and per_unit:
        return _checked(1 / float(per_unit), _unit(named[1].replace("\\u00B5", "µ")))
    return None


def _of_map(path: Path, page: tiff.Page) -> PixelSize | None:
    """What a projected reference system says, where rasterio is there to read it."""
    try:
        with rasters.opened(path, page, rasters.BandSelection(), str(path)) as raster:
            crs, transform = raster.georeference
            if crs is None or not crs.is_projected or is_mercator(crs):
                return None
            return _checked(abs(transform.determinant) ** 0.5 * crs.linear_units_factor[1], "m")
    except KshotError:
        return None


def _of_tags(per_unit: Any, kind: Any) -> PixelSize | None:
    """Pixels per centimetre; those per inch are printers'."""
    return _checked(1 / float(per_unit), "cm") if kind == 3 and per_unit else None


def _checked(side: float, unit: str | None) -> PixelSize | None:
    return PixelSize(side, unit) if unit and 0 < side < float("inf") else None


def _unit(text: str) -> str | None:
    known = _SPELLINGS.get(text.lower(), text.lower())
    return known if known in METRES else None
