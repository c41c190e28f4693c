"""The classifier of single pixels: against scikit-learn, and on images that are drawn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from kshot.methods._pixel_classifier import (
    _DECAY,
    LIMIT,
    _logistic_regression,
    fit_pixels,
    pixel_log_odds,
)
from kshot.ops.pixel_features import sample_pixels


def striped(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two bright lines, one pixel wide, on grey noise, and their mask."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 130, (64, 64, 3)).astype(np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[int(rng.integers(4, 60)), :] = 1
    mask[:, int(rng.integers(4, 60))] = 1
    image[mask == 1] = 220
    return image, mask


def test_the_regression_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 4))
    targets = (inputs @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=300) > 0.3).astype(float)
    own = _logistic_regression(
        torch.from_numpy(np.hstack([inputs, np.ones((300, 1))])), torch.from_numpy(targets)
    ).numpy()
    theirs = LogisticRegression(C=1 / _DECAY, tol=1e-10).fit(inputs, targets)
    np.testing.assert_allclose(own, [*theirs.coef_[0], theirs.intercept_[0]], atol=1e-3)


def test_lines_thinner_than_a_patch_are_found() -> None:
    image, mask = striped(0)
    classifier = fit_pixels([sample_pixels(image, [mask])], 0)
    other, truth = striped(1)
    odds = pixel_log_odds([classifier], other)[0]
    found = odds.numpy() > 0
    assert odds.shape == (64, 64) and float(odds.abs().max()) <= LIMIT
    assert (found & (truth == 1)).sum() / (found | (truth == 1)).sum() > 0.9


def test_the_order_of_supports_changes_nothing() -> None:
    samples = [sample_pixels(image, [mask]) for image, mask in map(striped, range(3))]
    first, second = fit_pixels(samples, 0), fit_pixels(samples[::-1], 0)
    assert first is not None and second is not None
    # Threads add in any order, and weights near zero have no relative precision.
    torch.testing.assert_close(first.weights, second.weights, rtol=1e-5, atol=1e-6)


def test_a_class_that_nothing_shows_has_no_classifier_and_no_odds() -> None:
    image, mask = striped(0)
    samples = [sample_pixels(image, [mask])]
    assert fit_pixels(samples, 1) is None
    assert fit_pixels([sample_pixels(image, [np.ones_like(mask)])], 0) is None  # no background
    assert not pixel_log_odds([None], image).any()


def test_a_large_image_gets_odds_at_its_own_size() -> None:
    image, mask = striped(0)
    classifier = fit_pixels([sample_pixels(image, [mask])], 0)
    large = np.kron(image, np.ones((12, 10, 1), np.uint8))
    assert pixel_log_odds([classifier], large).shape == (1, 768, 640)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_odds_keep_some_of_how_rare_a_class_is(share: float) -> None:
    """Colour says nothing here: what is left is half of the log odds of the class among the pixels."""
    rng = np.random.default_rng(0)
    image = np.full((80, 80, 3), 128, np.uint8)
    mask = (rng.random((80, 80)) < share).astype(np.uint8)
    classifier = fit_pixels([sample_pixels(image, [mask])], 0)
    odds = float(pixel_log_odds([classifier], image).mean())
    assert odds == pytest.approx(0.5 * np.log(mask.mean() / (1 - mask.mean())), abs=0.05)
