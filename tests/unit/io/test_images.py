import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kshot.errors import ImageReadError, ImageTooLargeError, ShapeError
from kshot.io.images import image_size, read_image, read_mask
from tests.support.files import picture

RAMP = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# What each orientation tag asks for, on an array (h, w, ...), by hand from the EXIF standard.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("tag", TURNS)
def test_an_orientation_tag_turns_image_and_mask_alike(tag, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = tag
    data = encoded(Image.fromarray(RAMP), exif=exif)
    np.testing.assert_array_equal(read_image(data), TURNS[tag](RAMP))
    labels = RAMP[..., 0] // 10
    for mode in ("L", "RGB"):
        turned = read_mask(encoded(Image.fromarray(labels).convert(mode), exif=exif))
        np.testing.assert_array_equal(turned, TURNS[tag](labels))
    path = tmp_path / "turned.png"
    path.write_bytes(data)
    assert image_size(path) == TURNS[tag](RAMP).shape[:2]


@pytest.mark.parametrize("tag", TURNS)
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "I;16"])
@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate"])
def test_an_orientation_tag_turns_a_tiff(tag, mode, compression, tmp_path):
    """By its path, where Pillow 13 maps pixels that are not packed and mistakes height for width, and in other ways."""
    stored = RAMP[..., 0].astype(np.uint16) * 256 if mode == "I;16" else RAMP if mode == "RGB" else RAMP[..., 0]
    image = Image.fromarray(stored)
    if mode == "P":
        image.putpalette([value // 3 for value in range(768)])
    path = tmp_path / "turned.tif"
    image.save(path, compression=compression, tiffinfo={0x0112: tag})
    expected = TURNS[tag](RAMP if mode == "RGB" else np.repeat(RAMP[..., :1], 3, 2))
    with Image.open(path) as opened:
        for source in (path, path.read_bytes(), opened):
            np.testing.assert_array_equal(read_image(source), expected)
    assert image_size(path) == image_size(path.read_bytes()) == expected.shape[:2]
    if mode in {"L", "P"}:
        np.testing.assert_array_equal(read_mask(path, drawn=False), expected[..., 0])


@pytest.mark.parametrize("kind", ["path", "string", "bytes", "pillow", "array"])
def test_every_kind_of_source_gives_the_same_pixels(kind, tmp_path):
    path = picture(tmp_path / "a.png")
    with Image.open(path) as opened:
        pixels = np.asarray(opened)
        sources = {"path": path, "string": str(path), "bytes": path.read_bytes(), "pillow": opened, "array": pixels}
        np.testing.assert_array_equal(read_image(sources[kind]), pixels)


@pytest.mark.parametrize(
    ("brightest", "bits"), [(255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (16383, 14), (16384, 16)]
)
def test_deep_images_come_down_by_their_bit_depth(brightest, bits):
    deep = np.array([[0, brightest // 2], [brightest // 4, brightest]], np.uint16)
    expected = np.stack([deep >> (bits - 8)] * 3, axis=-1)
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(deep))), expected)
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(deep), "TIFF")), expected)
    np.testing.assert_array_equal(read_image(deep), expected)


@pytest.mark.parametrize(
    ("mode", "kind", "value", "expected"),
    [
        ("L", "PNG", 70, (70, 70, 70)),
        ("1", "PNG", 1, (255, 255, 255)),
        ("LA", "PNG", (100, 255), (100, 100, 100)),
        ("LA", "PNG", (100, 0), (255, 255, 255)),
        ("RGBA", "PNG", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", "PNG", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", "TIFF", (0, 100, 200, 128), (127, 177, 227)),
        ("CMYK", "TIFF", (0, 255, 0, 0), (255, 0, 255)),
        ("CMYK", "TIFF", (0, 0, 0, 255), (0, 0, 0)),
        ("F", "TIFF", 0.5, (128, 128, 128)),
        ("I", "TIFF", 200, (200, 200, 200)),
    ],
)
def test_every_mode_becomes_rgb_with_transparency_over_white(mode, kind, value, expected):
    data = encoded(Image.new(mode, (3, 2), value), kind)
    np.testing.assert_array_equal(read_image(data), np.broadcast_to(expected, (2, 3, 3)))


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_a_palette_gives_its_colours_and_its_transparent_entry_white(transparency):
    paletted = Image.fromarray(np.array([[0, 1]], np.uint8))
    paletted.putpalette([10, 20, 30, 40, 50, 60])
    np.testing.assert_array_equal(read_image(encoded(paletted)), [[[10, 20, 30], [40, 50, 60]]])
    clear = encoded(paletted, transparency=transparency)
    np.testing.assert_array_equal(read_image(clear), [[[255, 255, 255], [40, 50, 60]]])


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 12.0, 255.0]]), [0, 12, 255]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0, 65535]], np.uint16), [0, 255]),
        (np.array([[0, 7]], np.int64), [0, 7]),
        (np.array([[[9], [8]]], np.uint8), [9, 8]),
        (np.array([[[10, 10, 10, 255], [10, 10, 10, 0]]], np.uint8), [10, 255]),
    ],
)
def test_arrays_of_every_kind_become_rgb_bytes(array, expected):
    pixels = read_image(array)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, np.repeat(np.array(expected)[None, :, None], 3, axis=-1))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([[0.0, np.nan]]), "NaN"),
        (np.array([[0.0, np.inf]]), "infinity"),
        (np.array([[-1, 5]]), "-1..5"),
        (np.array([[0, 70000]]), "0..70000"),
        (np.zeros((2, 2, 2)), "(2, 2, 2)"),
        (np.zeros(4), "(4,)"),
        (np.zeros((0, 4)), "(0, 4, 1)"),
        (np.array([["a"]]), "<U1"),
        (np.ones((2, 2), complex), "complex128"),
        (np.array([[None]]), "object"),
        (3, "int"),
    ],
)
def test_an_array_that_is_no_image_is_refused_with_what_came(array, says):
    with pytest.raises(ShapeError) as refused:
        read_image(array)
    assert says in str(refused.value)


def test_nan_in_a_file_is_refused_by_its_name(tmp_path):
    Image.fromarray(np.array([[np.nan]], np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(ShapeError, match=r"depth\.tif: .*NaN"):
        read_image(tmp_path / "depth.tif")


def broken(tmp_path, what):
    path = tmp_path / "x.jpg"
    if what == "truncated":
        path.write_bytes(picture(tmp_path / "whole.jpg", (64, 64)).read_bytes()[:1000])
    elif what == "text":
        path.write_text("these are no pixels")
    elif what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
    elif what == "below a file":
        path.touch()
        path = path / "y.jpg"
    return path


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("truncated", "truncated"),
        ("text", "not an image"),
        ("empty", "not an image"),
        ("folder", "a folder"),
        ("missing", "no such file"),
        ("below a file", "Not a directory"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_file_that_is_no_image_is_refused_by_its_name_and_reason(what, says, read, tmp_path):
    path = broken(tmp_path, what)
    with pytest.raises(ImageReadError) as refused:
        read(path)
    assert str(path) in str(refused.value) and says in str(refused.value)


def test_damaged_bytes_never_escape_as_another_error():
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)))
    chance = np.random.default_rng(1)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in chance.integers(0, len(whole), 4):
            damaged[place] = chance.integers(0, 256)
        try:
            assert read_image(bytes(damaged), max_pixels=10_000).shape[2] == 3
        except ImageReadError as refused:
            assert "the image given as bytes" in str(refused)


def test_the_pixel_limit_is_checked_before_decoding_and_names_the_way_out(tmp_path):
    path = picture(tmp_path / "big.png", (10, 10))
    assert read_image(path, max_pixels=100).shape == (10, 10, 3)
    for read in (read_image, read_mask):
        with pytest.raises(ImageTooLargeError, match=r"big\.png: 10 x 10 = 100 pixels.*--max-pixels"):
            read(path, max_pixels=99)


def test_a_bomb_is_refused_from_its_header_alone():
    small = encoded(Image.new("L", (1, 1)))
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + small[24:29]
    bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    with pytest.raises(ImageTooLargeError, match="900,000,000"):
        read_image(bomb)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "CMYK"])
def test_a_black_and_white_drawing_is_a_mask_of_zero_and_one(mode):
    drawing = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    drawing = drawing.convert("RGB").convert(mode) if mode == "CMYK" else drawing.convert(mode)
    np.testing.assert_array_equal(read_mask(encoded(drawing, "TIFF")), [[0, 1], [1, 0]])


def test_one_bit_pictures_and_truth_values_are_masks_of_zero_and_one():
    truth = np.array([[False, True]])
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray(truth))), [[0, 1]])
    np.testing.assert_array_equal(read_mask(truth), [[0, 1]])


def test_255_stays_ignore_where_it_can_be_told_from_white():
    labels = np.array([[0, 255]], np.uint8)
    paletted = Image.fromarray(labels)
    paletted.putpalette(bytes(768))
    np.testing.assert_array_equal(read_mask(encoded(paletted)), labels)
    np.testing.assert_array_equal(read_mask(labels), labels)
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray(labels)), drawn=False), labels)
    with_class = np.array([[0, 1, 255]], np.uint8)
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray(with_class))), with_class)


def test_soft_edges_of_a_drawing_are_cut_in_the_middle_rather_than_taken_as_labels():
    soft = np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(2, axis=0)
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray(soft))), soft > 127)


def test_a_jpeg_mask_is_cut_in_the_middle_and_labels_in_a_jpeg_are_refused():
    drawing = np.zeros((32, 32), np.uint8)
    drawing[5:20, 7:25] = 255
    noisy = encoded(Image.fromarray(drawing), "JPEG", quality=60)
    assert len(np.unique(np.asarray(Image.open(io.BytesIO(noisy))))) > 2
    np.testing.assert_array_equal(read_mask(noisy), drawing > 0)
    with pytest.raises(ShapeError, match="PNG"):
        read_mask(encoded(Image.fromarray(drawing // 64), "JPEG"))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (encoded(Image.new("RGB", (2, 2), "red")), "colour"),
        (encoded(Image.new("CMYK", (2, 2), (255, 0, 0, 0)), "TIFF"), "colour"),
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "float32"),
        (encoded(Image.fromarray(np.array([[0, 300]], np.uint16))), "0..300"),
        (np.zeros((2, 2, 3), np.uint8), "(2, 2, 3)"),
        (np.zeros((2, 2)), "float64"),
        (np.array([[-1]]), "-1"),
        (np.zeros((0, 3), np.uint8), "(0, 3)"),
    ],
)
def test_what_is_no_label_map_is_refused_with_what_came(source, says):
    with pytest.raises(ShapeError) as refused:
        read_mask(source)
    assert says in str(refused.value)
