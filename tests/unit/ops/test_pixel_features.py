"""What single pixels look like: values that can be counted by hand, and laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab

from kshot.ops.pixel_features import CHANNELS, MAX_SIDE, copy_size, pixel_features, sample_pixels, working_copy


def test_a_flat_image_has_its_colour_and_no_edges() -> None:
    features = pixel_features(np.full((40, 60, 3), 255, np.uint8))
    assert features.shape == (40, 60, CHANNELS) and features.dtype == np.float32
    colours = [0, 1, 2, *(3 + 7 * scale + plane for scale in range(4) for plane in range(3))]
    np.testing.assert_allclose(features[..., colours[::3]], 2.0, atol=1e-3)  # lightness 100 in units of 50
    rest = [channel for channel in range(CHANNELS) if channel not in colours]
    np.testing.assert_allclose(features[..., rest], 0.0, atol=1e-4)


def test_colours_are_those_of_scikit_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    image[0, :3] = [(0, 0, 0), (255, 255, 255), (1, 2, 3)]
    np.testing.assert_allclose(pixel_features(image)[..., :3] * 50, rgb2lab(image), atol=0.02)


def test_a_line_has_a_large_second_derivative_across_it() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 31:33] = 255
    features = pixel_features(image)
    smallest = features[..., 3 + 7 + 3 + 2]  # of the second scale: after its three colours, gradient, both eigenvalues
    assert smallest[32, 31] < -0.1 < smallest[32, 10]


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_any_size_gives_finite_features(height: int, width: int) -> None:
    rng = np.random.default_rng(height * 41 + width)
    features = pixel_features(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    assert features.shape == (height, width, CHANNELS) and np.isfinite(features).all()


def test_mirrored_images_have_mirrored_features() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    found, mirrored = pixel_features(image)[..., :17], pixel_features(image[:, ::-1])[..., :17]
    np.testing.assert_allclose(found[:, ::-1], mirrored, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 400), (300, 400)), ((1024, 2048), (256, 512)), ((1, 9999), (1, 512))]
)
def test_large_images_are_looked_at_small(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert copy_size(size) == expected
    assert max(working_copy(np.zeros((*size, 3), np.uint8)).shape) <= max(MAX_SIDE, 3)


def test_samples_show_what_their_labels_say() -> None:
    image, labels = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)
    image[10:20, 5:15], labels[10:20, 5:15] = 200, 1
    labels[:, 30:] = 255
    samples = sample_pixels(image, [labels])
    rows, columns = samples.places.long().T
    assert torch.equal(samples.labels, torch.from_numpy(labels)[rows, columns])
    assert samples.counts[samples.labels == 1].sum() == 100
    assert samples.counts.sum() == 30 * 30 and int(samples.places[:, 1].max()) < 30
    assert set(samples.labels.tolist()) == {0, 1}
    again = sample_pixels(image, [labels])
    assert torch.equal(samples.places, again.places)


def test_later_label_maps_lie_above_and_may_have_another_size() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    first, second = np.ones((20, 20), np.uint8), np.zeros((40, 40), np.uint8)
    second[:20] = 2
    samples = sample_pixels(image, [first, second])
    counted = {label: float(samples.counts[samples.labels == label].sum()) for label in (1, 2)}
    assert counted == {1: 200.0, 2: 200.0}


def test_nothing_known_gives_no_samples() -> None:
    samples = sample_pixels(np.zeros((5, 5, 3), np.uint8), [np.full((5, 5), 255, np.uint8)])
    assert len(samples.labels) == len(samples.features) == 0
