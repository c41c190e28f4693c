"""A classifier of single pixels, learned from the supports: for lines, grains and borders that patches cannot hold.

As in interactive segmentation of microscopy (ilastik: Berg et al., Nature Methods 2019), but small enough to be fitted
anew with each task: logistic regression on `pixel_features` and random Fourier features of them, which approximate a
Gaussian kernel (Rahimi and Recht, NeurIPS 2007). It knows colour and texture and no objects, so it helps where images
look alike and is useless among photographs: left-out supports decide how much it counts (`auto`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kshot.ops.pixel_features import CHANNELS, PixelSamples, pixel_features

_FOURIER = 96  # random Fourier features
_BANDWIDTH = 0.15  # their frequencies' standard deviation, in units of standardised features
_DECAY = 30.0  # of the weights, in samples
_MAX_SAMPLES = 6000  # of a fit
_STEPS, _CONVERGED = 8, 1e-3  # of Newton's method
_PRIOR = 0.5  # power of the odds of a class among the supports' pixels that a pixel starts from
LIMIT = 6.0  # log odds are clamped to -LIMIT..LIMIT
_LEAST = 5  # samples of either side


@dataclass(frozen=True, eq=False)
class PixelClassifier:
    """Log odds of one class for single pixels."""

    mean: Tensor
    """(CHANNELS,) float64."""
    spread: Tensor
    """(CHANNELS,) float64."""
    weights: Tensor
    """(CHANNELS + Fourier features + 1,) float64."""

    def log_odds(self, features: Tensor) -> Tensor:
        """(n,) float32 log odds of pixels (n, CHANNELS), within -LIMIT..LIMIT."""
        standard = (features.float() - self.mean.float()) / self.spread.float()
        linear, waves = self.weights[:CHANNELS].float(), self.weights[CHANNELS:-1].float()
        found = standard @ linear + _waves(standard) @ waves + float(self.weights[-1])
        return found.clamp(-LIMIT, LIMIT)


def fit_pixels(samples: Sequence[PixelSamples], way: int) -> PixelClassifier | None:
    """The classifier of class `way`, from the samples of supports; None where either side has almost none."""
    step = -(-sum(len(each.labels) for each in samples) // _MAX_SAMPLES)
    features = torch.cat([each.features[::step] for each in samples]).double()
    shown = torch.cat([each.labels[::step] == way + 1 for each in samples])
    counts = torch.cat([each.counts[::step] for each in samples]).double()
    foreground, background = int(shown.sum()), int((~shown).sum())
    if min(foreground, background) < _LEAST:
        return None
    mean, spread = features.mean(0), features.std(0) + 1e-3
    standard = (features - mean) / spread
    inputs = torch.cat([standard, _waves(standard), torch.ones(len(standard), 1, dtype=torch.float64)], 1)
    weights = _logistic_regression(inputs, shown.double())
    # Samples hold more of a small class than images do.
    odds = float(counts[shown].sum() / counts[~shown].sum())
    weights[-1] += _PRIOR * math.log(odds) - math.log(foreground / background)
    return PixelClassifier(mean, spread, weights)


def pixel_log_odds(classifiers: Sequence[PixelClassifier | None], image: NDArray[np.uint8]) -> Tensor:
    """(n, h, w) log odds of each classifier's class in an image (h, w, 3); zero where there is no classifier."""
    features = torch.from_numpy(pixel_features(image))
    flat, size_hw = features.flatten(0, 1), (features.shape[0], features.shape[1])
    planes: list[Tensor] = [each.log_odds(flat) if each is not None else torch.zeros(len(flat)) for each in classifiers]
    found: Tensor = torch.stack(planes).unflatten(1, size_hw)
    if size_hw == image.shape[:2]:
        return found
    large: Tensor = F.interpolate(found[None], image.shape[:2], mode="bilinear", align_corners=False)
    return large[0]


def _logistic_regression(inputs: Tensor, targets: Tensor) -> Tensor:
    """(d,) weights by Newton's method from inputs (n, d), the last of which is 1, and targets (n,) of 0 or 1.

    The slope is exact, and so are the weights; the curvature, which says how far each step goes, need not be.
    """
    weights, single = inputs.new_zeros(inputs.shape[1]), inputs.float()
    decay = torch.full_like(weights, _DECAY)
    decay[-1] = 1e-3
    for _ in range(_STEPS):
        probabilities = (inputs @ weights).clamp(-30, 30).sigmoid()
        slope = inputs.T @ (probabilities - targets) + decay * weights
        curvature = (probabilities * (1 - probabilities)).clamp(min=1e-4)
        hessian = ((single * curvature.float()[:, None]).T @ single).double() + torch.diag(decay)
        change = torch.linalg.solve(hessian, slope)
        weights = weights - change
        if float(change.abs().max()) < _CONVERGED:
            break
    return weights


def _waves(standard: Tensor) -> Tensor:
    """(n, Fourier features) of standardised features (n, CHANNELS)."""
    frequencies, phases = (each.to(standard) for each in _frequencies())
    return torch.addmm(phases, standard, frequencies).cos_()


@lru_cache(maxsize=1)
def _frequencies() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    frequencies = rng.normal(0, _BANDWIDTH, (CHANNELS, _FOURIER))
    return torch.from_numpy(frequencies), torch.from_numpy(rng.uniform(0, 2 * np.pi, _FOURIER))
