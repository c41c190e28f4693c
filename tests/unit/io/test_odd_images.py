"""Bands, depths, pages, HEIC: what TIFFs and telephones hold besides three bands of 8 bits."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kshot.errors import ImageReadError, ImageTooLargeError, SettingError, ShapeError
from kshot.io import rasters, tiff
from kshot.io.images import image_size, read_image
from kshot.io.rasters import BandSelection
from kshot.io.stems import unique_stems
from tests.support import heic


def tif(path: Path, bands: np.ndarray, **more) -> Path:
    """A TIFF of bands (b, h, w)."""
    count, height, width = bands.shape
    how = {"driver": "GTiff", "transform": rasterio.Affine.scale(2), "dtype": bands.dtype} | more
    with rasterio.open(path, "w", width=width, height=height, count=count, **how) as file:
        file.write(bands)
    return path


FIVE = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3) * 8


def test_bands_are_chosen_by_their_number_from_one(tmp_path):
    path = tif(tmp_path / "five.tif", FIVE)
    np.testing.assert_array_equal(
        read_image(path, selection=BandSelection((4, 3, 2))), FIVE[[3, 2, 1]].transpose(1, 2, 0)
    )
    np.testing.assert_array_equal(read_image(path, selection=BandSelection((5,))), FIVE[[4, 4, 4]].transpose(1, 2, 0))
    np.testing.assert_array_equal(
        read_image(path.read_bytes(), selection=BandSelection((1, 1, 5))), FIVE[[0, 0, 4]].transpose(1, 2, 0)
    )


def test_without_a_choice_the_first_three_are_taken_and_that_is_said_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(rasters, "_warned_band_counts", set())
    path = tif(tmp_path / "five.tif", FIVE)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            np.testing.assert_array_equal(read_image(path), FIVE[:3].transpose(1, 2, 0))
    assert len(caplog.messages) == 1 and "--bands" in caplog.messages[0]


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_bands_show_the_first_grey(count, tmp_path):
    deep = FIVE[:count].astype(np.uint16) * 100
    path = tif(tmp_path / "deep.tif", deep)
    grey = deep[0] >> (2 if count == 1 and deep.max() < 1024 else 4)
    np.testing.assert_array_equal(read_image(path), np.stack([grey] * 3, -1))


def test_sixteen_bits_of_three_bands_come_down_by_the_depth_of_all(tmp_path):
    deep = np.array([[[100, 4000]], [[0, 16]], [[32, 4095]]], np.uint16)
    expected = (deep >> 4).transpose(1, 2, 0)
    np.testing.assert_array_equal(read_image(tif(tmp_path / "deep.tif", deep)), expected)


def test_a_stretch_clips_and_shows_what_has_no_value_black(tmp_path):
    values = np.array([[[-5, 0, 50, 100, 900, np.nan]]], np.float32)
    path = tif(tmp_path / "floats.tif", values)
    shown = read_image(path, selection=BandSelection(stretch=(0, 100)))
    assert shown[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0]
    with pytest.raises(ShapeError, match=r"floats\.tif: .*--stretch"):
        read_image(path)


@pytest.mark.parametrize(("bands", "says"), [((4,), "no band 4, it has 3"), ((1, 2, 9), r"no band 9.*1\.\.3")])
def test_a_band_that_is_not_there_is_refused_by_its_number(bands, says, tmp_path):
    path = tif(tmp_path / "three.tif", FIVE[:3], photometric="RGB")
    with pytest.raises(ImageReadError, match=f"three.tif: .*{says}"):
        read_image(path, selection=BandSelection(bands))


@pytest.mark.parametrize("bands", [(0,), (1, 2), (1, 2, 3, 4), (-1, 2, 3), (1.5,)])
def test_numbers_that_are_no_bands_are_refused(bands):
    with pytest.raises(SettingError, match="4,3,2"):
        BandSelection(bands)


@pytest.mark.parametrize("stretch", [(1, 1), (5, 2), (0, float("inf")), (1,)])
def test_an_impossible_stretch_is_refused(stretch):
    with pytest.raises(SettingError, match="LOW,HIGH"):
        BandSelection.of(None, stretch)


def test_many_bands_keep_the_pixel_limit(tmp_path):
    with pytest.raises(ImageTooLargeError, match="--tile"):
        read_image(tif(tmp_path / "five.tif", FIVE), max_pixels=5)


def test_without_rasterio_the_error_names_the_extra(tmp_path, monkeypatch):
    path = tif(tmp_path / "five.tif", FIVE)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImageReadError, match=r"five\.tif: .*kshot\[geo\]"):
        read_image(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK"])
def test_windows_show_the_colours_that_the_whole_shows(mode, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 4), np.uint8)
    image = Image.fromarray(picture)
    (image if mode == "RGBA" else image.convert("RGB").convert(mode)).save(tmp_path / "a.tif")
    whole = read_image(tmp_path / "a.tif")
    (page,) = tiff.pages(tmp_path / "a.tif")
    with rasters.opened(tmp_path / "a.tif", page, BandSelection(), "a.tif") as raster:
        np.testing.assert_array_equal(raster.window(slice(5, 20), slice(7, 50)), whole[5:20, 7:50])
        rows, columns = rasters.preview_pixels(40, 50, 10), rasters.preview_pixels(50, 50, 10)
        np.testing.assert_array_equal(raster.preview(10), whole[rows][:, columns])


def pages_of(path: Path, count: int = 3, **more) -> list[np.ndarray]:
    pictures = [np.full((20 + n, 30, 3), 60 * n, np.uint8) for n in range(count)]
    first, *rest = (Image.fromarray(picture) for picture in pictures)
    first.save(path, save_all=True, append_images=rest, **more)
    return pictures


@pytest.mark.parametrize("big", [False, True])
def test_pages_are_read_by_their_number_and_the_first_by_default(big, tmp_path):
    path = tmp_path / "scan.tif"
    pictures = pages_of(path, big_tiff=big)
    assert [page.size_hw for page in tiff.pages(path)] == [(20, 30), (21, 30), (22, 30)]
    np.testing.assert_array_equal(read_image(path), pictures[0])
    for number, picture in enumerate(pictures, 1):
        np.testing.assert_array_equal(read_image(path, page=number), picture)
        np.testing.assert_array_equal(
            read_image(path.read_bytes(), page=number, selection=BandSelection((3, 2, 1))), picture
        )
    with pytest.raises(ImageReadError, match=r"scan\.tif: no page 4, it has 3"):
        read_image(path, page=4)


def test_overviews_are_no_pages(tmp_path):
    path = tif(tmp_path / "scene.tif", np.zeros((1, 300, 300), np.uint8), tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert len(tiff.pages(path)) == 1


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow's, on tags that make no sense
@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 400), place=st.integers(0, 400), value=st.integers(0, 255))
def test_damaged_directories_end_in_kshots_errors(tmp_path_factory, cut, place, value):
    path = tmp_path_factory.getbasetemp() / "damaged.tif"
    pages_of(path, 2)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(data[: len(data) - cut])
    for number in range(1, len(tiff.pages(path)) + 1):
        try:
            assert read_image(path, page=number, max_pixels=10_000).shape[2] == 3
        except (ImageReadError, ShapeError) as refused:
            assert "damaged.tif" in str(refused)


def test_a_chain_of_directories_that_bites_its_tail_ends(tmp_path):
    path = tmp_path / "loop.tif"
    pages_of(path, 2)
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    data[start + 2 + 12 * count : start + 6 + 12 * count] = start.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(tiff.pages(path)) == 1


@pytest.mark.parametrize(("data", "turned"), [(heic.PLAIN, False), (heic.TURNED, True)])
def test_a_heic_is_read_like_any_picture(tmp_path, data, turned):
    pytest.importorskip("pi_heif")
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 48:] = (200, 40, 40)
    picture[:8, :8] = (40, 200, 40)
    picture = np.rot90(picture, -1) if turned else picture
    path = tmp_path / "a.heic"
    path.write_bytes(data)
    assert np.abs(read_image(path).astype(int) - picture).mean() < 4
    assert image_size(path) == picture.shape[:2]
    with pytest.raises(ImageReadError, match=r"a\.heic"):
        path.write_bytes(data[:-100])
        read_image(path)


def test_without_pi_heif_the_error_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.heic"
    # The box that every HEIC begins with; more is not looked at without the plugin.
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ImageReadError, match=r"a\.heic: .*kshot\[heic\]"):
        read_image(path)


def test_pages_and_frames_get_names_of_their_own():
    names = ["a.tif#page0001", "a.tif#page0002", "a/page0001.png", "m.mp4#000010", "m.jpg", "s/x.MOV#000000", "e#1.jpg"]
    stems = unique_stems(names)
    assert list(stems.values()) == [
        "a.tif/page0001",
        "a.tif/page0002",
        "a/page0001",
        "m.mp4/000010",
        "m.jpg",
        "s/x/000000",
        "e#1",
    ]
