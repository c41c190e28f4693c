import itertools

import numpy as np
import pytest
from PIL import Image

from kshot.errors import OutputError, SettingError
from kshot.formats import overlay
from kshot.formats.png import palette
from tests.support.files import prediction


def block(size_hw=(40, 60), label=1):
    labels = np.zeros(size_hw, np.uint8)
    labels[10:30, 20:50] = label
    return labels


def test_background_pixels_stay_as_they_are():
    labels = block()
    drawn = np.asarray(overlay.draw(prediction(labels, ("cat",))))
    assert (drawn[labels == 0] == 128).all()


@pytest.mark.parametrize(("alpha", "part"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_the_fill_mixes_the_class_colour_by_alpha(alpha, part):
    drawn = np.asarray(overlay.draw(prediction(block(), ("cat",)), alpha))
    expected = 128 * (1 - part) + part * np.array(overlay.colour_of(1))
    np.testing.assert_allclose(drawn[20, 35], expected, atol=1)


def test_the_outline_is_two_pixels_inside_the_edge():
    drawn = np.asarray(overlay.draw(prediction(block(), ("cat",)), alpha=0.0))
    np.testing.assert_array_equal(np.flatnonzero((drawn[20] != 128).any(-1)), [20, 21, 48, 49])
    np.testing.assert_array_equal(np.flatnonzero((drawn[:, 35] != 128).any(-1)), [10, 11, 28, 29])


def test_the_outline_grows_with_images_over_1500_pixels():
    labels = np.zeros((30, 3000), np.uint8)
    labels[:, 1000:2000] = 1
    drawn = np.asarray(overlay.draw(prediction(labels, ("cat",)), alpha=0.0))
    np.testing.assert_array_equal(
        np.flatnonzero((drawn[15] != 128).any(-1)), [1000, 1001, 1002, 1003, 1996, 1997, 1998, 1999]
    )


def test_touching_classes_are_parted_by_a_line_and_the_rim_of_the_picture_has_none():
    labels = np.ones((20, 20), np.uint8)
    assert (np.asarray(overlay.draw(prediction(labels, ("a",)), alpha=0.0)) == 128).all()
    labels[:, 10:] = 2
    drawn = np.asarray(overlay.draw(prediction(labels, ("a", "b")), alpha=0.0))
    np.testing.assert_array_equal(np.flatnonzero((drawn[5] != 128).any(-1)), [8, 9, 10, 11])


@pytest.mark.parametrize("label", range(1, 9))
def test_the_outline_stands_out_from_its_fill(label):
    names = tuple(f"c{i}" for i in range(8))
    drawn = np.asarray(overlay.draw(prediction(block(label=label), names), alpha=1.0)).astype(float)
    brightness = drawn @ [0.299, 0.587, 0.114]
    assert abs(brightness[10, 35] - brightness[20, 35]) > 60


def test_the_first_colours_differ_for_all_eyes_and_the_rest_are_voc():
    first = overlay.CLASS_COLOURS
    assert [overlay.colour_of(i + 1) for i in range(len(first))] == list(first)
    assert overlay.colour_of(len(first) + 1) == tuple(palette()[len(first) + 1].tolist())
    # Simulated deuteranopia (Viénot et al. 1999) in linear light: no two of them may fall together.
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    blind = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    seen = ((np.array(first) / 255) ** 2.2) @ (np.linalg.inv(to_lms) @ blind @ to_lms).T
    shown = 255 * seen.clip(0, 1) ** (1 / 2.2)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(shown, 2)) > 30


@pytest.mark.parametrize("index", [0, -1, 255])
def test_a_label_that_no_class_has_is_refused(index):
    with pytest.raises(SettingError, match=r"1\.\.254"):
        overlay.colour_of(index)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_0_to_1_is_refused(alpha):
    with pytest.raises(SettingError, match="alpha"):
        overlay.draw(prediction(block(), ("cat",)), alpha)


def test_without_an_image_it_says_so(tmp_path):
    bare = prediction(block(), ("cat",), with_picture=False)
    with pytest.raises(SettingError, match="no image"):
        bare.overlay()
    with pytest.raises(SettingError, match="no image"):
        bare.save(tmp_path / "x.jpg")


def test_drawing_leaves_the_prediction_alone():
    found = prediction(block(), ("cat",))
    before = found.image.copy()
    found.overlay()
    np.testing.assert_array_equal(found.image, before)


@pytest.mark.parametrize(("name", "kind"), [("x.jpg", "JPEG"), ("x.jpeg", "JPEG"), ("x.webp", "WEBP")])
def test_the_file_is_of_its_suffix_and_close_to_the_drawing(name, kind, tmp_path):
    found = prediction(block(), ("cat",))
    overlay.FORMAT.write(found, tmp_path / name)
    with Image.open(tmp_path / name) as written:
        assert (written.format, written.size) == (kind, (60, 40))
        error = np.asarray(written.convert("RGB")).astype(int) - np.asarray(overlay.draw(found))
    assert np.abs(error).mean() < 3


@pytest.mark.parametrize("name", ["x.jpg", "x.webp"])
def test_an_image_too_wide_for_the_kind_is_an_output_error(name, tmp_path):
    found = prediction(np.zeros((1, 70_000), np.uint8), ("cat",))
    with pytest.raises(OutputError, match="cannot be written"):
        overlay.FORMAT.write(found, tmp_path / name)
    assert not list(tmp_path.iterdir())
