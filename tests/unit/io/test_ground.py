"""Square metres of a pixel, against formulas and against GeographicLib's geodesics where pyproj is installed."""

import math
from itertools import pairwise

import numpy as np
import pytest

from kshot.errors import SettingError

rasterio = pytest.importorskip("rasterio")
from kshot.io.ground import pixel_areas, reference_system  # noqa: E402

A, F = 6_378_137.0, 1 / 298.257223563  # of WGS 84


def zone(latitude: float) -> float:
    """Square metres between the equator and a parallel, for a radian of longitude (Snyder 1987, equation 3-12)."""
    e = math.sqrt(F * (2 - F))
    s = math.sin(math.radians(latitude))
    q = (1 - e * e) * (s / (1 - e * e * s * s) - math.log((1 - e * s) / (1 + e * s)) / (2 * e))
    return A * A * q / 2


def test_a_projected_map_says_its_pixels_itself() -> None:
    crs = reference_system("EPSG:32632")
    assert pixel_areas(crs, (0.5, 0, 0, 0, -0.4, 0), 3).tolist() == pytest.approx([0.2] * 3)
    assert pixel_areas(crs, (3, -4, 0, 4, 3, 0), 1).tolist() == [25]
    feet = reference_system("EPSG:2263")
    assert pixel_areas(feet, (1, 0, 0, 0, -1, 0), 1)[0] == pytest.approx(0.3048**2, rel=1e-5)


@pytest.mark.parametrize("top", [0, 50, -33.5, 80])
def test_degrees_are_measured_on_the_ellipsoid(top: float) -> None:
    found = pixel_areas(reference_system(4326), (0.01, 0, 9, 0, -0.02, top), 4)
    edges = [top - 0.02 * row for row in range(5)]
    wanted = [math.radians(0.01) * (zone(a) - zone(b)) for a, b in pairwise(edges)]
    assert found == pytest.approx(wanted, rel=1e-7)


def test_a_pixel_across_the_antimeridian_has_its_area() -> None:
    across = pixel_areas(reference_system(4326), (0.5, 0, 179.75, 0, -0.5, 10), 2)
    assert across == pytest.approx(pixel_areas(reference_system(4326), (0.5, 0, 0, 0, -0.5, 10), 2))


def test_mercator_is_measured_on_the_ellipsoid_too() -> None:
    crs = reference_system("EPSG:3857")
    (x, _), (y, below) = rasterio.warp.transform("EPSG:4326", crs, [9, 9], [60, 59.99])
    found = pixel_areas(crs, (10, 0, x, 0, below - y, y), 1)
    longitudes = math.radians(10 / (A * math.pi) * 180)
    assert found[0] == pytest.approx(longitudes * (zone(60) - zone(59.99)), rel=1e-7)
    assert found[0] < 0.26 * 10 * (y - below)  # the map shows four times of it


def test_pyproj_measures_the_same() -> None:
    pyproj = pytest.importorskip("pyproj")
    found = pixel_areas(reference_system(4326), (0.001, 0, 9, 0, -0.001, 50), 1)[0]
    # A geodesic between two corners is no parallel; so many points that it is nearly one.
    along = np.linspace(9, 9.001, 1001)
    xs, ys = [*along, *along[::-1]], [50] * 1001 + [49.999] * 1001
    assert found == pytest.approx(abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(xs, ys)[0]), rel=1e-6)


def test_where_no_area_is_known_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert pixel_areas(reference_system(4326), (0.01, 0.001, 9, 0.001, -0.01, 50), 3) is None
    assert "turned grid" in caplog.text
    local = reference_system('LOCAL_CS["site",UNIT["metre",1]]')
    assert pixel_areas(local, (1, 0, 0, 0, -1, 0), 3) is None
    assert "neither a projected" in caplog.text


def test_an_unknown_reference_system_is_refused() -> None:
    with pytest.raises(SettingError, match="EPSG:999999"):
        reference_system("EPSG:999999")
