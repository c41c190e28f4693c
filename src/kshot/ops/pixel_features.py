"""What single pixels look like: colour, edges and texture at several scales.

The features that interactive segmentation of microscopy is built on (ilastik: Berg et al., Nature Methods 2019): Lab
colour, smoothed at four scales, and of the lightness its gradient and the eigenvalues of its Hessian, which are large
on lines and spots. They know nothing of objects, and see what a grid of patches cannot: lines, borders and grains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.ops.smoothing import gaussian_means

SCALES = (1, 2, 4, 8)  # standard deviations of the Gaussians, pixels of the copy that is looked at
MAX_SIDE = 512  # pixels, of the longer side of that copy
CHANNELS = 3 + 7 * len(SCALES)
# Rec. 709 primaries to CIE XYZ, relative to the white of D65.
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_TO_XYZ = (_TO_XYZ / [[0.95047], [1.0], [1.08883]]).astype(np.float32)
_LAB_UNIT = 50.0  # so that values are about -1 to 1
_MAX_OF_LABEL = 1500  # samples of an image that show one thing
_IGNORE = 255
Values = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PixelSamples:
    """Some pixels of an image, and what each shows."""

    features: Tensor
    """(n, CHANNELS) float16, see `pixel_features`."""
    labels: Tensor
    """(n,) uint8: 0 for the background, w + 1 for class w."""
    counts: Tensor
    """(n,) float32: pixels that each stands for."""
    places: Tensor
    """(n, 2) int16: row and column in the image's `working_copy`."""

    def part(self, chosen: Tensor) -> "PixelSamples":
        """Those that a mask (n,) chooses."""
        return PixelSamples(*(values[chosen] for values in (self.features, self.labels, self.counts, self.places)))


def pixel_features(image: Pixels) -> Values:
    """(h', w', CHANNELS) float32 of an image (h, w, 3), on a copy of at most MAX_SIDE pixels on its longer side."""
    lab = _lab(working_copy(image)) / _LAB_UNIT
    found = [lab]
    for scale in SCALES:
        # What is smooth needs few pixels: large scales are computed on smaller copies.
        step = max(1, scale // 2)
        smooth = _smoothed(lab, scale, step)
        found += [_enlarged(values, lab.shape[:2]) for values in (smooth, _shape_of(smooth[..., 0], scale / step))]
    return np.concatenate(found, axis=2)


def sample_pixels(image: Pixels, labels: Sequence[Pixels]) -> PixelSamples:
    """Pixels of an image (h, w, 3) with label maps of any size (h', w'), of which later ones lie above.

    A label is 0 for the background, w + 1 for class w, and 255 where nothing is known. Of each label about the same
    number are drawn, everywhere in the image and always the same.
    """
    features = pixel_features(image)
    found = np.zeros(features.shape[:2], np.uint8)
    for each in labels:
        resized = _resized(each, found.shape)
        found = np.where(resized > 0, resized, found)
    rng, drawn, counts = np.random.default_rng(0), [], []
    for label in (each for each in np.unique(found) if each != _IGNORE):
        places = np.flatnonzero(found == label)
        kept = np.sort(rng.choice(places, min(len(places), _MAX_OF_LABEL), replace=False))
        drawn.append(kept)
        counts.append(np.full(len(kept), len(places) / len(kept), np.float32))
    chosen = np.concatenate(drawn) if drawn else np.zeros(0, np.int64)
    rows, columns = np.unravel_index(chosen, found.shape)
    return PixelSamples(
        torch.from_numpy(features[rows, columns]).half(),
        torch.from_numpy(found[rows, columns]),
        torch.from_numpy(np.concatenate(counts) if counts else np.zeros(0, np.float32)),
        torch.from_numpy(np.stack([rows, columns], 1).astype(np.int16)),
    )


def copy_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the working copy of an image of this size."""
    scale = min(1.0, MAX_SIDE / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def working_copy(image: Pixels) -> Pixels:
    """An image (h, w, 3) with at most MAX_SIDE pixels on its longer side."""
    height, width = copy_size((image.shape[0], image.shape[1]))
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _resized(labels: Pixels, size_hw: tuple[int, ...]) -> Pixels:
    """A label map at another size, each pixel with the label of the nearest."""
    if labels.shape == size_hw:
        return labels
    size = size_hw[1], size_hw[0]
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def _lab(image: Pixels) -> Values:
    """CIE Lab (h, w, 3) of sRGB: lightness 0 to 100, and two axes of colour (IEC 61966-2-1; CIE 15)."""
    levels = np.arange(256, dtype=np.float32) / 255
    linear = np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92).astype(np.float32)
    xyz = linear[image] @ _TO_XYZ.T
    roots = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + np.float32(16 / 116))
    x, y, z = np.moveaxis(roots, 2, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 2).astype(np.float32)


def _smoothed(lab: Values, scale: float, step: int) -> Values:
    """Every `step`-th pixel of the planes (h, w, 3) after a Gaussian."""
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(lab, 2, 0)))
    return np.moveaxis(gaussian_means(planes, scale, step).numpy(), 0, 2)


def _shape_of(plane: Values, scale: float) -> Values:
    """(h, w, 4): gradient, both eigenvalues of the Hessian and their difference, in units of the scale."""
    down, right = (np.gradient(plane, axis=axis) if plane.shape[axis] > 1 else np.zeros_like(plane) for axis in (0, 1))
    downs = [np.gradient(down, axis=axis) if plane.shape[axis] > 1 else np.zeros_like(plane) for axis in (0, 1)]
    right_right = np.gradient(right, axis=1) if plane.shape[1] > 1 else np.zeros_like(plane)
    mean = (downs[0] + right_right) / 2
    spread = np.sqrt(((downs[0] - right_right) / 2) ** 2 + downs[1] ** 2)
    second = scale**2
    return np.stack(
        [np.hypot(down, right) * scale, (mean + spread) * second, (mean - spread) * second, spread * second], 2
    )


def _enlarged(planes: Values, size_hw: tuple[int, int]) -> Values:
    """Planes (h', w', n) at the full size of the copy."""
    if planes.shape[:2] == size_hw:
        return planes
    size = (size_hw[1], size_hw[0])
    layers = [Image.fromarray(planes[..., n]).resize(size, Image.Resampling.BILINEAR) for n in range(planes.shape[2])]
    return np.stack([np.asarray(layer) for layer in layers], 2)
