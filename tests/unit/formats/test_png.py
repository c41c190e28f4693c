import numpy as np
import pytest
from PIL import Image

from kshot.errors import ShapeError
from kshot.formats import png
from kshot.io.images import read_mask
from tests.support.files import prediction, square


def test_the_palette_is_that_of_the_voc_devkit():
    colours = png.palette()
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {label: tuple(colours[label].tolist()) for label in known} == known
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


@pytest.mark.parametrize(
    "labels",
    [
        [[0, 255]],
        [[255, 255]],
        [[0, 0]],
        [[0, 1]],
        [[7]],
        np.arange(256).reshape(16, 16),
    ],
)
def test_every_label_comes_back_and_255_stays_ignore(labels, tmp_path):
    labels = np.asarray(labels, np.uint8)
    png.save_labels(labels, tmp_path / "x.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), labels)


def test_other_readers_see_indices_and_voc_colours(tmp_path):
    png.FORMAT.write(prediction(square(2), ("cat", "dog")), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as written:
        assert written.mode == "P"
        assert written.convert("RGB").getpixel((2, 1)) == (0, 128, 0)
        np.testing.assert_array_equal(np.asarray(written), square(2))


def test_a_mask_in_any_memory_order_is_written_as_it_reads(tmp_path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for view in (labels.T, labels[::-1], labels[:, ::2]):
        png.save_labels(view, tmp_path / "x.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), view)


@pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.zeros((2, 2, 1), np.uint8), np.zeros((0, 2), np.uint8)])
def test_anything_but_a_label_map_is_refused(wrong, tmp_path):
    with pytest.raises(ShapeError, match="expected a mask"):
        png.save_labels(wrong, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
