"""Small files that say great things: they are refused by the limit's name, or read within little memory."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kshot.errors import ImageTooLargeError, SettingError
from kshot.formats import coco, cvat, label_studio, labelme
from kshot.io import tiff
from kshot.io.class_masks import read_class_mask
from kshot.io.colour_masks import read_colours
from kshot.io.images import image_size, read_image, read_mask
from kshot.io.limits import Limit
from tests.support.memory import at_most, bytes_read

GIF = b"GIF89a" + struct.pack("<HH", 14_000, 14_000) + b"\x80\0\0" + bytes(6)
GIF += b",\0\0\0\0" + struct.pack("<HH", 14_000, 14_000) + b"\0\x02\0;"
SIDE = 5000
MIB = 2**20


def test_a_limit_is_its_variable_or_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Limit("KSHOT_MAX_TEST", 7)
    assert limit.value == 7
    monkeypatch.setenv("KSHOT_MAX_TEST", " 12 ")
    assert limit.value == 12
    for wrong in ("0", "-1", "x", "1e9", "²"):
        monkeypatch.setenv("KSHOT_MAX_TEST", wrong)
        with pytest.raises(SettingError, match="KSHOT_MAX_TEST"):
            _ = limit.value


@pytest.mark.parametrize("read", [read_image, read_mask, read_class_mask, image_size])
def test_a_few_bytes_never_hold_millions_of_pixels(read) -> None:
    with at_most(64 * MIB), pytest.raises(ImageTooLargeError, match=f"in {len(GIF)} bytes.*KSHOT_MAX_PIXELS_PER_BYTE"):
        read(GIF)


def test_an_image_of_one_colour_is_read_where_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (SIDE, SIDE), 1).save(tmp_path / "a.webp", lossless=True)
    with pytest.raises(ImageTooLargeError, match="KSHOT_MAX_PIXELS_PER_BYTE"):
        read_image(tmp_path / "a.webp")
    monkeypatch.setenv("KSHOT_MAX_PIXELS_PER_BYTE", "1000000")
    assert read_image(tmp_path / "a.webp").shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_an_empty_mask_is_never_too_small_for_its_pixels(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (SIDE, SIDE)).save(tmp_path / "a.png", optimize=True)
    assert not read_mask(tmp_path / "a.png").any()


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (9, 9, 9, 255)), ("RGB", (9, 8, 7)), ("I;16", 500), ("P", 1)])
def test_a_flat_image_takes_a_few_bytes_a_pixel(mode: str, colour, tmp_path: Path) -> None:
    side = 4000
    Image.new(mode, (side, side), colour).save(tmp_path / "a.png", compress_level=1)
    with at_most(9 * side * side + 120 * MIB):  # four of Pillow, three of the result, and a strip
        assert read_image(tmp_path / "a.png").shape == (side, side, 3)
        read_colours(tmp_path / "a.png")


def test_the_limit_of_images_is_that_of_masks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setenv("KSHOT_MAX_PIXELS", "599")
    for read in (read_image, read_mask, read_class_mask):
        with pytest.raises(ImageTooLargeError, match=r"600 pixels, over the limit of 599; raise.*KSHOT_MAX_PIXELS"):
            read(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png") == (20, 30)
    monkeypatch.setenv("KSHOT_MAX_LABEL_PIXELS", "599")
    with pytest.raises(ImageTooLargeError, match="raise KSHOT_MAX_LABEL_PIXELS"):
        image_size(tmp_path / "a.png")


HEIGHT, WIDTH = 8000, 10_000
RESERVED = 4 * HEIGHT * WIDTH  # by pycocotools, which uses little of it


def brush(value: int) -> list:
    """A Label Studio export whose only region paints a whole image with one value."""
    total = HEIGHT * WIDTH * 4
    whole, rest = divmod(total, 2**16)
    bits = f"{total:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += f"111{2**16 - 1:016b}{value:08b}" * whole + (f"111{rest - 1:016b}{value:08b}" if rest else "")
    bits += "0" * (-len(bits) % 8)
    painted = {"format": "rle", "rle": list(int(bits, 2).to_bytes(len(bits) // 8, "big")), "brushlabels": ["x"]}
    region = {"type": "brushlabels", "value": painted, "original_width": WIDTH, "original_height": HEIGHT}
    return [{"data": {"image": "a.jpg"}, "annotations": [{"result": [region]}]}]


ALL = {
    "label_studio": brush(255),
    "cvat": f'<annotations><image name="a.jpg" width="{WIDTH}" height="{HEIGHT}"><mask label="x" left="0" top="0" '
    f'width="{WIDTH}" height="{HEIGHT}" rle="0,{WIDTH * HEIGHT}"/></image></annotations>',
    "coco": {
        "images": [{"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [
            {
                "id": place,
                "image_id": 1,
                "category_id": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]},
            }
            for place in range(30)
        ],
    },
}


@pytest.mark.parametrize("name", ALL)
def test_masks_that_fill_an_image_that_is_not_there_take_little_memory(name: str, tmp_path: Path) -> None:
    form = {"label_studio": label_studio, "cvat": cvat, "coco": coco}[name].FORMAT
    path = tmp_path / ("a.xml" if name == "cvat" else "a.json")
    path.write_text(ALL[name] if name == "cvat" else json.dumps(ALL[name]))
    with at_most(RESERVED + HEIGHT * WIDTH + 160 * MIB):
        read = form.read_annotations(path)
        (image,) = read.images
    assert {one.area for one in image.annotations} == {HEIGHT * WIDTH} and not read.skipped.failures


@pytest.mark.parametrize("name", ALL)
def test_an_image_that_is_not_there_has_a_limit_too(name: str, tmp_path: Path, monkeypatch) -> None:
    form = {"label_studio": label_studio, "cvat": cvat, "coco": coco}[name].FORMAT
    path = tmp_path / ("a.xml" if name == "cvat" else "a.json")
    path.write_text(ALL[name] if name == "cvat" else json.dumps(ALL[name]))
    monkeypatch.setenv("KSHOT_MAX_LABEL_PIXELS", "79999999")
    read = form.read_annotations(path)
    assert not list(read.images) and "raise KSHOT_MAX_LABEL_PIXELS" in read.skipped.failures[0]


def of_labelme(folder: Path, *shapes: dict) -> Path:
    about = {"imagePath": "a.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": list(shapes)}
    (folder / "a.json").write_text(json.dumps(about))
    return folder / "a.json"


def polygon(points: list, label: str = "x") -> dict:
    return {"label": label, "shape_type": "polygon", "points": points}


def test_many_holes_in_a_large_image_take_no_pixels(tmp_path: Path) -> None:
    square = [[0, 0], [60, 0], [60, 60], [0, 60]]
    holes = [polygon([[0, 0], [10 + i, 0], [10 + i, 10], [0, 10]], "_background_") for i in range(40)]
    with at_most(RESERVED + 60 * MIB):
        (image,) = labelme.FORMAT.read_annotations(of_labelme(tmp_path, polygon(square), *holes)).images
    assert image.annotations[0].area == 60 * 60 - 49 * 10


def test_an_outline_that_goes_to_and_fro_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = of_labelme(
        tmp_path, polygon([[WIDTH * (i % 2), 0.01 * i] for i in range(3000)]), polygon([[0, 0], [9, 0], [9, 9]])
    )
    with at_most(RESERVED + 60 * MIB):
        read = labelme.FORMAT.read_annotations(path)
        (image,) = read.images
    assert len(image.annotations) == 1
    assert "a.json: shape 1: a polygon of 3,000 corners" in read.skipped.failures[0]
    assert "raise KSHOT_MAX_OUTLINE" in read.skipped.failures[0]
    monkeypatch.setenv("KSHOT_MAX_OUTLINE", "26")
    assert not next(iter(labelme.FORMAT.read_annotations(path).images)).annotations


def pages_file(path: Path, count: int) -> Path:
    """A TIFF of `count` pages of one pixel each, which all show the byte at 8."""
    data = bytearray(b"II*\0" + struct.pack("<I", 16) + b"\x07" + bytes(7))
    for page in range(count):
        values = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
        tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
        following = len(data) + 2 + len(tags) + 4 if page < count - 1 else 0
        data += struct.pack("<H", len(values)) + tags + struct.pack("<I", following)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("as_bytes", [False, True])
def test_no_page_of_a_tiff_is_read_for_another(as_bytes: bool, tmp_path: Path) -> None:
    path = pages_file(tmp_path / "a.tif", 3000)
    source = path.read_bytes() if as_bytes else path
    assert len(tiff.pages(source)) == 3000
    read_image(source, page=2)  # loads what reading needs
    before = bytes_read()
    for page in (2, 1500, 3000):
        assert read_image(source, page=page).tolist() == [[[7, 7, 7]]]
    # Pillow reads up to 64 KiB of pixels at once, from wherever they are.
    assert bytes_read() - before < 3 * 100 * 1024 < path.stat().st_size


def test_pages_of_a_file_that_was_written_anew_are_its_own(tmp_path: Path) -> None:
    for count in (3, 5):
        assert len(tiff.pages(pages_file(tmp_path / "a.tif", count))) == count


def test_deep_bands_are_read_in_strips(tmp_path: Path) -> None:
    import rasterio

    how = {
        "driver": "GTiff",
        "dtype": "float64",
        "count": 3,
        "compress": "deflate",
        "transform": rasterio.Affine.scale(2),
    }
    with rasterio.open(tmp_path / "a.tif", "w", width=4000, height=3000, **how) as file:
        for band in (1, 2, 3):
            file.write(np.full((3000, 4000), 0.5), band)
    with at_most(360 * MIB):  # 288 MB of numbers alone, if all of them were there at once; GDAL keeps 128 MiB
        assert (read_image(tmp_path / "a.tif") == 128).all()
