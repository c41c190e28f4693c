"""Colour and texture, no learned weights: what there is to use without a network or a model.

Every patch of 8 x 8 pixels is described by its colour at three scales and by the energy of oriented gradients at three
scales (in the manner of Manjunath and Ma's texture features, PAMI 1996). Each number is then laid on a circle, as its
cosine and sine at two frequencies, so that all patch tokens have the same length and the cosine of two of them is an
additive von Mises kernel over the numbers (random Fourier features with fixed frequencies; Rahimi and Recht, NeurIPS
2007). A kernel density over such features multiplies the numbers' kernels, which is what a filter bank wants.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Encoding, Spec, fingerprint, refuse_layers

_FREQUENCIES = (1.0, 2.0)
_COLOUR_SCALES = (1, 3, 7)  # side of the window, patches
_TEXTURE_OCTAVES = 3
_ORIENTATIONS = 4
# Weight of a group of numbers in the kernel, and the differences that count as one radian.
_COLOUR = (1.0, (0.20, 0.08, 0.08))
_SPREAD = (0.6, 0.08)
_ENERGY = (0.6, 0.8)
_DIRECTION = (0.3, 0.35)
_CHANNELS = 3 * len(_COLOUR_SCALES) + 2 + _TEXTURE_OCTAVES * (1 + _ORIENTATIONS)

SPECS = {
    "classic": Spec(
        "classic",
        patch=8,
        dim=2 * len(_FREQUENCIES) * _CHANNELS,
        mean_rgb=(0.0,) * 3,
        std_rgb=(1.0,) * 3,
        licence="Apache-2.0",
        source="kshot",
        note="colour and texture filters; no weights, no network",
    ),
}


class Classic:
    """The filter bank; nothing in it was learned."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.spec, self.device, self.dtype = SPECS["classic"], device, dtype
        self.identity = fingerprint({}, "classic", 1, _COLOUR, _SPREAD, _ENERGY, _DIRECTION, _FREQUENCIES)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) of values in 0..1 into (b, dim, H / 8, W / 8)."""
        # The bank is arithmetic on a few planes: bfloat16 would save nothing and lose half of the contrast.
        pixels = pixels.to(self.device, torch.float32)
        opponent = _opponent(pixels)
        groups = [*_colour(opponent, self.spec.patch), *_texture(opponent[:, :1], self.spec.patch)]
        dense = torch.cat([_on_circles(numbers / unit) * math.sqrt(weight) for numbers, unit, weight in groups], 1)
        dense = F.normalize(dense, dim=1).to(self.dtype)
        return Encoding(dense, F.normalize(dense.float().mean((2, 3)), dim=1))


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Classic:
    """The filter bank; it has no layers to choose from."""
    refuse_layers(name, layers)
    return Classic(device, dtype)


def _opponent(rgb: Tensor) -> Tensor:
    """Lightness, red-green and yellow-blue, (b, 3, H, W); a square root stands for the eye's response."""
    red, green, blue = rgb.clamp(min=0).sqrt().unbind(1)
    return torch.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], 1)


def _colour(opponent: Tensor, patch: int) -> list[tuple[Tensor, float, float]]:
    means = F.avg_pool2d(opponent, patch)
    weight, units = _COLOUR
    groups = []
    for scale in _COLOUR_SCALES:
        around = _blur(means, scale)
        groups += [(around[:, i : i + 1], unit, weight / scale**0.5) for i, unit in enumerate(units)]
    lightness = opponent[:, :1]
    spread = (F.avg_pool2d(lightness**2, patch) - means[:, :1] ** 2).clamp(min=0).sqrt()
    return groups + [(_blur(spread, scale), _SPREAD[1], _SPREAD[0]) for scale in (1, 3)]


def _texture(lightness: Tensor, patch: int) -> list[tuple[Tensor, float, float]]:
    grid_hw = lightness.shape[2] // patch, lightness.shape[3] // patch
    groups, plane = [], lightness
    for octave in range(_TEXTURE_OCTAVES):
        energies = _blur(F.adaptive_avg_pool2d(_oriented(plane), grid_hw), 3)
        total = energies.sum(1, keepdim=True)
        groups.append(((total + 1e-4).log(), _ENERGY[1] * 2, _ENERGY[0]))
        fractions = energies / (total + 1e-3)
        groups += [
            (fractions[:, i : i + 1], _DIRECTION[1], _DIRECTION[0] / _ORIENTATIONS) for i in range(_ORIENTATIONS)
        ]
        if octave + 1 < _TEXTURE_OCTAVES:
            plane = F.avg_pool2d(plane, 2)
    return groups


def _oriented(plane: Tensor) -> Tensor:
    """Energy of the gradient along four directions, (b, 4, H, W)."""
    padded = F.pad(plane, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    angles = [math.pi * i / _ORIENTATIONS for i in range(_ORIENTATIONS)]
    return torch.cat([(across * math.cos(a) + down * math.sin(a)) ** 2 for a in angles], 1)


def _blur(planes: Tensor, side: int) -> Tensor:
    """Mean over `side` x `side` patches, borders repeated."""
    if side == 1:
        return planes
    reach = side // 2
    return F.avg_pool2d(F.pad(planes, (reach,) * 4, mode="replicate"), side, stride=1)


def _on_circles(numbers: Tensor) -> Tensor:
    angles = torch.cat([numbers * f for f in _FREQUENCIES], 1)
    return torch.cat([angles.cos(), angles.sin()], 1)
