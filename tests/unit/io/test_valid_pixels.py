"""Where a TIFF has data: by its nodata value, its mask or its alpha; and what is predicted there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot
from kshot.io import valid_pixels as module
from kshot.io.images import read_image
from kshot.io.rasters import BandSelection
from kshot.io.valid_pixels import valid_pixels
from tests.support.drawing import draw

rasterio = pytest.importorskip("rasterio")
from tests.support.scenes import write_scene  # noqa: E402

HOLE = np.zeros((24, 30), np.bool_)
HOLE[:, :8] = True


def grey(dtype: str = "uint16") -> np.ndarray:
    return (np.arange(24 * 30).reshape(24, 30) + 100).astype(dtype)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 65_535), ("int16", -9999), ("float32", np.nan)])
def test_a_nodata_value_is_no_data_and_no_brightness(dtype: str, nodata: float, tmp_path: Path) -> None:
    pixels = grey(dtype)
    pixels[HOLE] = nodata
    path = write_scene(tmp_path / "a.tif", pixels, nodata=nodata)
    assert np.array_equal(valid_pixels(path), ~HOLE) and np.array_equal(valid_pixels(path.read_bytes()), ~HOLE)
    read = read_image(path)
    assert (read[HOLE] == 0).all()
    # 10 bits, as the values of the scene have them: 65,535 would have made all else black.
    assert np.array_equal(read[~HOLE][:, 0], grey()[~HOLE] // 4)


def test_of_several_bands_one_with_data_is_enough(tmp_path: Path) -> None:
    pixels = np.full((24, 30, 3), 9, np.uint8)
    pixels[HOLE] = 0
    pixels[0, 0, 2] = 1
    valid = valid_pixels(write_scene(tmp_path / "a.tif", pixels, nodata=0))
    assert valid is not None and valid[0, 0] and not valid[1, 0] and valid[0, 9]


def test_a_mask_in_the_file_or_beside_it_counts(tmp_path: Path) -> None:
    for inside in ("YES", "NO"):
        path = write_scene(tmp_path / inside / "a.tif", np.full((24, 30, 3), 9, np.uint8))
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
            file.write_mask(~HOLE)
        assert np.array_equal(valid_pixels(path), ~HOLE), inside


def test_alpha_is_no_data_on_a_map_alone(tmp_path: Path) -> None:
    pixels = np.full((24, 30, 4), 255, np.uint8)
    pixels[HOLE, 3] = 0
    path = write_scene(tmp_path / "map.tif", pixels, photometric="RGB", alpha="YES")
    assert np.array_equal(valid_pixels(path), ~HOLE)
    Image.fromarray(pixels).save(tmp_path / "drawing.tif")
    assert valid_pixels(tmp_path / "drawing.tif") is None


def test_other_images_have_data_everywhere(tmp_path: Path) -> None:
    pixels = np.full((24, 30, 3), 9, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    full = write_scene(tmp_path / "full.tif", pixels, nodata=0)
    for image in (tmp_path / "a.png", tmp_path / "a.png", full, tmp_path / "none.tif", pixels, Image.fromarray(pixels)):
        assert valid_pixels(image) is None


def test_without_rasterio_the_way_to_get_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.full((24, 30), 9, np.uint8)
    pixels[HOLE] = 0
    path = write_scene(tmp_path / "a.tif", pixels, nodata=0)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    for _ in range(2):
        assert valid_pixels(path) is None
    assert caplog.text.count("kshot[geo]") == 1


def test_an_orientation_tag_turns_the_mask_with_the_image(tmp_path: Path) -> None:
    pixels = grey("uint8") | 1
    pixels[HOLE] = 0
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.tif", tiffinfo={274: 6, 42113: "0"}, compression="tiff_deflate")
    valid = valid_pixels(tmp_path / "a.tif")
    assert np.array_equal(valid, read_image(tmp_path / "a.tif")[..., 0] > 0) and valid.shape == (30, 24)


def test_no_class_is_predicted_where_there_is_no_data(
    toy: kshot.Segmenter, shots: list[kshot.Shot], tmp_path: Path
) -> None:
    picture, _ = draw(0)
    task = toy.fit(shots)
    whole = toy.predict(task, picture)
    _, column = np.argwhere(whole.mask == 1)[0]
    cut = picture | 1
    cut[:, : column + 1] = 0
    found = toy.predict(task, write_scene(tmp_path / "a.tif", cut, nodata=0))
    assert not found.mask[:, : column + 1].any() and found.mask.any()
    assert (found.scores[0, :, : column + 1] == 1).all() and np.allclose(found.scores.sum(0), 1, atol=1e-5)
    assert found.areas() == {name: int((found.mask == label).sum()) for label, name in enumerate(found.classes, 1)}
    assert found.with_valid_mask(None) is found
    with pytest.raises(kshot.errors.MaskError, match="valid mask"):
        found.with_valid_mask(np.ones((3, 3), np.bool_))


def test_a_stretch_leaves_no_data_black(tmp_path: Path) -> None:
    pixels = grey("float32")
    pixels[HOLE] = 1e30
    path = write_scene(tmp_path / "a.tif", pixels, nodata=1e30)
    assert (read_image(path, selection=BandSelection(stretch=(0, 900)))[HOLE] == 0).all()
