"""How large a pixel is: what people write, and what TIFFs say of themselves."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from kshot.errors import SettingError
from kshot.io.bands import read_bands
from kshot.io.pixel_size import PixelSize, pixel_size_of

PIXELS = np.arange(24 * 30, dtype=np.uint16).reshape(24, 30) * 60


@pytest.mark.parametrize(
    ("text", "side", "unit"),
    [("0.65um", 0.65, "um"), (" 2 mm ", 2, "mm"), ("0.5µm", 0.5, "um"), ("1e-1m", 0.1, "m"), ("254dpi", 0.1, "mm")],
)
def test_a_number_with_a_unit_is_a_size(text: str, side: float, unit: str) -> None:
    assert PixelSize.parse(text) == PixelSize(pytest.approx(side), unit)


@pytest.mark.parametrize(
    ("text", "said"),
    [("0.65", "without a unit"), ("0um", "expected a number"), ("um", "expected a number"), ("3 furlongs", "furlongs")],
)
def test_a_scale_without_a_number_or_a_unit_is_refused_with_the_way_out(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said) as refused:
        PixelSize.parse(text)
    assert "such as 0.65um" in str(refused.value)


def test_a_size_is_the_same_length_in_every_unit() -> None:
    assert PixelSize(650, "nm").in_unit("um") == pytest.approx(0.65)
    assert PixelSize(1, "in").in_unit("mm") == pytest.approx(25.4)


def test_microscopes_say_their_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        PIXELS,
        metadata={"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"},
    )
    assert pixel_size_of(tmp_path / "a.ome.tif") == PixelSize(0.5, "um")
    tifffile.imwrite(tmp_path / "b.tif", PIXELS, imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    assert pixel_size_of(tmp_path / "b.tif") == PixelSize(0.25, "um")


def test_a_map_says_its_pixel_size_in_metres(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    shape = {"height": 24, "width": 30, "count": 1, "dtype": "uint16"}
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)
    with rasterio.open(tmp_path / "m.tif", "w", driver="GTiff", crs="EPSG:32632", transform=place, **shape) as file:
        file.write(PIXELS, 1)
    assert pixel_size_of(tmp_path / "m.tif") == PixelSize(10, "m")


def test_dots_per_inch_are_for_printers(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.tif"):
        Image.new("RGB", (30, 20)).save(tmp_path / name, dpi=(300, 300))
        assert pixel_size_of(tmp_path / name) is None
    tifffile.imwrite(tmp_path / "cm.tif", PIXELS, resolution=(100, 100), resolutionunit="CENTIMETER")
    assert pixel_size_of(tmp_path / "cm.tif") == PixelSize(pytest.approx(0.01), "cm")


def test_values_are_read_as_they_are_stored(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", PIXELS)
    assert np.array_equal(read_bands(tmp_path / "deep.tif")[..., 0], PIXELS)
    five = np.stack([PIXELS + band for band in range(5)], -1)
    tifffile.imwrite(tmp_path / "five.tif", five, planarconfig="contig", photometric="minisblack")
    assert np.array_equal(read_bands(tmp_path / "five.tif"), five)
    Image.fromarray(np.full((4, 5, 4), 9, np.uint8)).save(tmp_path / "alpha.png")
    assert read_bands(tmp_path / "alpha.png").shape == (4, 5, 3)
