"""How much ground a pixel of a map covers, in square metres. Needs the extra `geo`.

In a projected reference system it is what the map says. Degrees, and Mercator's maps, which stretch areas with the
latitude, are measured on the ellipsoid: a pixel between two parallels and two meridians is a rectangle in a cylindrical
equal-area projection (Snyder 1987, "Map Projections: A Working Manual", section 10), so its area there is its own.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import SettingError

log = logging.getLogger(__name__)
_EQUAL_AREA = "EPSG:6933"  # EASE-Grid 2.0: cylindrical, equal-area, in metres on WGS 84


def pixel_areas(crs: Any, transform: Sequence[float], height: int) -> NDArray[np.float64] | None:
    """(height,) square metres of a pixel in each row of a map; None where the reference system says no size of it.

    crs: as `reference_system` gives it. transform: (a, b, c, d, e, f) from pixels. None, with a word in the log, for a
    system that is neither projected nor in degrees, and for a grid in degrees, or of Mercator, that is turned.
    """
    a, b, c, d, e, f = transform[:6]
    if not (crs.is_projected or crs.is_geographic):
        _say_once(f"{crs}: neither a projected reference system nor one in degrees; areas are in pixels alone")
        return None
    if crs.is_projected and not is_mercator(crs):
        return np.full(height, abs(a * e - b * d) * crs.linear_units_factor[1] ** 2)
    if b or d:
        _say_once(f"{crs}: a turned grid, whose pixels' areas differ; areas are in pixels alone")
        return None
    from rasterio.warp import transform as project

    _, ys = project(crs, _EQUAL_AREA, [c] * (height + 1), (f + e * np.arange(height + 1)).tolist())
    xs, _ = project(crs, _EQUAL_AREA, [0.0, abs(a)], [0.0, 0.0])
    areas: NDArray[np.float64] = np.abs(np.diff(ys)) * abs(xs[1] - xs[0])
    return areas


def is_mercator(crs: Any) -> bool:
    """Whether a projected system is Mercator's, whose metres are metres at the equator alone."""
    return str(crs.to_dict().get("proj", "")) in {"merc", "webmerc"} or crs.to_epsg() in {3857, 3395}


def reference_system(crs: Any) -> Any:
    """A reference system of rasterio's from what a person gave: "EPSG:32633", a number, WKT, or one of its own.

    Raises `SettingError` without rasterio, or where it knows no such system.
    """
    try:
        import rasterio
    except ImportError as error:
        raise SettingError("reference systems need rasterio; pip install 'kshot[geo]'") from error
    try:
        return rasterio.CRS.from_user_input(crs)
    except rasterio.errors.CRSError as error:
        raise SettingError(f"crs {crs!r}: no known reference system; expected one such as EPSG:32633") from error


@cache
def _say_once(text: str) -> None:
    log.warning(text)
