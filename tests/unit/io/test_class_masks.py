"""Masks of one class as tools save them: white, soft, transparent, labels, and numbers of objects."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from kshot.errors import ShapeError
from kshot.io.class_masks import MaskKind, read_class_mask
from kshot.io.images import read_mask
from tests.support.memory import at_most

SIZE = (40, 60)  # height, width


def saved(array: np.ndarray, mode: str | None = None, kind: str = "PNG") -> bytes:
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    elif mode:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def numbered(count: int, dtype: type = np.uint8, side: int = 4) -> np.ndarray:
    """Objects side by side, numbered from 1."""
    across = 20
    rows = -(-count // across)
    numbers = np.arange(1, rows * across + 1).reshape(rows, across)
    numbers[numbers > count] = 0
    objects = np.kron(numbers, np.ones((side, side), int)).astype(dtype)
    return np.pad(objects, 3)


@pytest.mark.parametrize("side", [2, 3, 8])
@pytest.mark.parametrize(
    ("count", "dtype"), [(2, np.uint8), (200, np.uint8), (255, np.uint8), (300, np.uint16), (65_535, np.uint16)]
)
def test_any_number_of_an_object_is_the_class(count, dtype, side):
    labels = numbered(count, dtype, side if count < 1000 else 2)
    read = read_class_mask(saved(labels))
    np.testing.assert_array_equal(read.pixels, labels > 0)
    assert len(read.labels) == count and read.labels[-1] == count
    assert read.kind is (MaskKind.LABELS if dtype is np.uint8 else MaskKind.DEEP)
    np.testing.assert_array_equal(read_class_mask(labels).pixels, labels > 0)


def test_objects_that_are_thin_lines_or_specks_apart_are_no_soft_brush():
    lines = np.zeros((420, 60), np.uint8)
    lines[::2, 5:50] = np.arange(1, 211)[:, None]
    np.testing.assert_array_equal(read_class_mask(saved(lines)).pixels, lines > 0)
    specks = np.zeros((60, 60), np.uint8)
    specks[::4, ::4] = np.arange(1, 226).reshape(15, 15)
    np.testing.assert_array_equal(read_class_mask(saved(specks)).pixels, specks > 0)


def drawing(how: str) -> np.ndarray:
    large = Image.new("L", (480, 320))
    ImageDraw.Draw(large).ellipse((100, 60, 380, 250), fill=255)
    if how.startswith("supersampled"):
        times = int(how[-1])
        return np.asarray(large.resize((480 // times, 320 // times), Image.Resampling.BOX))
    return np.asarray(large.filter(ImageFilter.GaussianBlur(int(how.split()[1]))))


@pytest.mark.parametrize("how", ["supersampled 2", "supersampled 4", "supersampled 8", "blurred 1", "blurred 5"])
@pytest.mark.parametrize("reader", [lambda mask: read_class_mask(mask).pixels, read_mask])
def test_soft_edges_are_cut_in_the_middle(how, reader):
    soft = drawing(how)
    np.testing.assert_array_equal(reader(saved(soft)), soft > 127)
    assert read_class_mask(saved(soft)).kind is MaskKind.SOFT


def test_a_wide_soft_brush_and_one_of_16_bits():
    y, x = np.mgrid[:200, :200]
    brush = np.rint(255 * np.exp(-((x - 100) ** 2 + (y - 100) ** 2) / 2 / 30**2)).astype(np.uint8)
    np.testing.assert_array_equal(read_class_mask(saved(brush)).pixels, brush > 127)
    deep = drawing("blurred 3").astype(np.uint16) * 257
    np.testing.assert_array_equal(read_class_mask(saved(deep)).pixels, deep > 32767)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_the_class(dtype):
    white = np.where(numbered(3) > 0, np.iinfo(dtype).max, 0).astype(dtype)
    for value in (white, np.minimum(white, 255)):
        read = read_class_mask(saved(value))
        np.testing.assert_array_equal(read.pixels, white > 0)
        assert read.kind is MaskKind.DRAWN


def test_255_is_ignore_beside_labels_and_an_object_after_254_others():
    labels = numbered(3)
    labels[0] = 255
    for image in (saved(labels), saved(labels, "P"), labels):
        read = read_class_mask(image)
        assert (
            read.labels == (1, 2, 3) and (read.pixels[0] == 255).all() and (read.pixels[1:] == (labels[1:] > 0)).all()
        )
    assert (read_class_mask(saved(numbered(255))).pixels < 2).all()


@pytest.mark.parametrize("colour", [0, 255, (200, 30, 10)])
@pytest.mark.parametrize("soft", [False, True])
def test_of_transparent_images_the_alpha_counts(colour, soft):
    alpha = drawing("supersampled 4") if soft else np.where(numbered(30) > 0, 255, 0).astype(np.uint8)
    pixels = np.dstack([np.full((*alpha.shape, 3), colour, np.uint8), alpha])
    read = read_class_mask(saved(pixels))
    np.testing.assert_array_equal(read.pixels, alpha > 127)
    assert read.kind is MaskKind.ALPHA
    np.testing.assert_array_equal(read_mask(saved(pixels)), alpha > 127)


def test_an_alpha_that_contradicts_the_colours_or_hides_nothing_is_refused():
    grey = np.where(numbered(30) > 0, 255, 0).astype(np.uint8)
    alpha = np.full_like(grey, 255)
    alpha[:2] = 0
    with pytest.raises(ShapeError, match="both its alpha and its colours"):
        read_class_mask(saved(np.dstack([grey, grey, grey, alpha])))
    with pytest.raises(ShapeError, match="both its alpha and its colours"):
        read_class_mask(saved(np.dstack([grey, grey, grey, np.maximum(alpha, 200)])))
    with pytest.raises(ShapeError, match="colour image"):
        read_class_mask(saved(np.dstack([grey, alpha, grey, np.full_like(grey, 255)])))
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    np.testing.assert_array_equal(read_class_mask(saved(opaque)).pixels, grey > 0)


def test_labels_keep_their_values_where_the_rest_is_transparent():
    labels = numbered(3)
    alpha = np.where(labels > 0, 255, 0).astype(np.uint8)
    whole = saved(np.dstack([labels, labels, labels, alpha]))
    np.testing.assert_array_equal(read_mask(whole, drawn=False), labels)
    with pytest.raises(ShapeError, match="labels that are transparent"):
        read_mask(saved(np.dstack([labels, labels, labels, 255 - alpha])), drawn=False)


def test_whole_numbers_as_floats_in_a_tiff_are_labels():
    read = read_class_mask(saved(numbered(300).astype(np.float32), kind="TIFF"))
    np.testing.assert_array_equal(read.pixels, numbered(300) > 0)
    with pytest.raises(ShapeError, match="float32"):
        read_class_mask(saved(numbered(300).astype(np.float32) / 7, kind="TIFF"))


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.full((4, 4), -1), np.zeros((0, 4), np.uint8)])
def test_what_is_no_mask_is_refused(array):
    with pytest.raises(ShapeError):
        read_class_mask(array)


def test_a_large_transparent_mask_takes_few_bytes_a_pixel():
    side = 4000
    pixels = np.full((side, side, 4), (255, 255, 255, 0), np.uint8)
    pixels[1000:2000, 1000:3000, 3] = 255
    data = saved(pixels)
    del pixels
    read_class_mask(saved(np.zeros((4, 4), np.uint8)))  # what is imported then is not counted
    with at_most(11 * side**2):  # the image itself takes 4, and its bytes while it is read
        read = read_class_mask(data)
    assert read.kind is MaskKind.ALPHA and read.pixels.sum() == 2_000_000
