"""A fully connected CRF in the band where the decision changes (Kraehenbuehl and Koltun, NIPS 2011).

Mean-field inference with the paper's two kernels, one of places alone and one of places and colours, and Potts'
compatibility. Two things differ from the paper. Pixels away from the band between classes keep their scores, which
saves most of the work; and each sum over all pixels is taken on a lattice of places within two standard deviations,
each kernel normalised, instead of by a permutohedral lattice (windows as in ConvCRF, Teichmann and Cipolla, BMVC 2019).

pydensecrf2 would be a compiled extension without wheels for every platform, filters the whole image, and knows no
band; this is torch alone, and benchmarks/speed/refiners.py measures it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.ops.geometry import Frame, to_pixels
from kshot.refiners._band import band, enlarge, fit_size, shrink


@dataclass(frozen=True)
class Settings:
    """The two kernels, with lengths in pixels of an image of about 500 x 375, and the mean field.

    The paper's weights are for sums over all pixels; these, for means, were chosen on VOC development data.
    """

    alpha: float = 20.0
    """Standard deviation of the bilateral kernel in space, pixels."""
    beta: float = 13.0
    """Standard deviation of the bilateral kernel in colour, levels of 0..255."""
    gamma: float = 3.0
    """Standard deviation of the smoothing kernel, pixels."""
    bilateral: float = 4.0
    """Weight of the bilateral kernel, logits."""
    smoothing: float = 2.0
    """Weight of the smoothing kernel, logits."""
    steps: int = 5
    """Iterations of the mean field."""
    band: int = 1
    """How far from the decision pixels are refined, patches."""
    limit: float = 4.0
    """Logits are clamped to -limit..limit."""
    side: int = 448
    """Images of more than side x side pixels of area are refined at that size, and the change is enlarged."""


class _Link(NamedTuple):
    """One place of the lattice around each of the p pixels of the band."""

    pixels: Tensor
    """(p,): index of the pixel that lies there."""
    weights: Tensor
    """(p,): its weight."""


def refine(logits: Tensor, frame: Frame, image: NDArray[np.uint8], settings: Settings) -> Tensor:
    """(N+1, gh, gw) logits to (N+1, h, w), smoothed where places and colours of the image (h, w, 3) uint8 agree."""
    plain = to_pixels(logits, frame)
    near = band(logits, settings.band)
    if not bool(near.any()):
        return plain
    small_hw = fit_size(frame.size_hw, settings.side)
    in_band = (to_pixels(near, frame, small_hw) > 0.5).flatten().nonzero()[:, 0]  # (p,)
    unary = to_pixels(logits[1:], frame, small_hw).clamp(-settings.limit, settings.limit).flatten(1)  # (N, s)
    unit = (small_hw[0] * small_hw[1]) ** 0.5 / 433  # of the kernels' spatial reach: 433 squared is 500 x 375
    links = _links(_colours(image, small_hw), in_band, unit, settings)
    # The field adds the kernels' votes to the logits; scaled back, the result is no more confident than the scores.
    scale = settings.limit / (settings.limit + settings.bilateral + settings.smoothing)
    change = torch.zeros_like(unary)
    change[:, in_band] = scale * _mean_field(unary, in_band, links, settings) - unary[:, in_band]
    plain[1:] += enlarge(change.unflatten(1, small_hw), frame.size_hw)
    return plain


def _mean_field(unary: Tensor, in_band: Tensor, links: list[_Link], settings: Settings) -> Tensor:
    """(N, p): logits of the band's pixels against the background, from those of all pixels (N, s)."""
    total = sum(link.weights for link in links)
    field = unary[:, in_band]
    probabilities = _softmax(unary)
    for _ in range(settings.steps):
        votes = torch.zeros_like(field)
        for link in links:
            votes.addcmul_(probabilities.index_select(1, link.pixels), link.weights)
        # The background has what the classes do not have of a neighbour's probability.
        field = unary[:, in_band] + votes - (total - votes.sum(0))
        probabilities[:, in_band] = _softmax(field)
    return field


def _softmax(logits: Tensor) -> Tensor:
    """(N, s) probabilities of the classes beside a background of logit zero."""
    return torch.cat([torch.zeros_like(logits[:1]), logits]).softmax(0)[1:]


def _links(colours: Tensor, in_band: Tensor, unit: float, settings: Settings) -> list[_Link]:
    alike = _kernel(colours, in_band, settings.alpha * unit, 3, settings.beta, settings.bilateral)
    return alike + _kernel(colours, in_band, settings.gamma * unit, 2, None, settings.smoothing)


def _kernel(
    colours: Tensor, in_band: Tensor, sigma: float, reach: int, beta: float | None, strength: float
) -> list[_Link]:
    """Links of the band's pixels `in_band` (p,) whose weights sum to `strength`, over a lattice of (2 reach + 1)^2."""
    height, width = colours.shape[1:]
    rows, columns = in_band // width, in_band % width
    flat = colours.flatten(1)
    own = flat[:, in_band]
    links = []
    for down, right in _lattice(max(1, round(2 * sigma / reach)), reach):
        there = (rows + down).clamp(0, height - 1) * width + (columns + right).clamp(0, width - 1)
        exponent = torch.full((len(in_band),), (down**2 + right**2) / (2 * sigma**2))
        if beta is not None:
            exponent += (flat[:, there] - own).square_().sum(0) / (2 * beta**2)
        links.append(_Link(there, (-exponent).exp_()))
    total = torch.stack([link.weights for link in links]).sum(0).clamp_(min=1e-6)
    return [_Link(pixels, weights * (strength / total)) for pixels, weights in links]


def _lattice(spacing: int, reach: int) -> list[tuple[int, int]]:
    """Places around a pixel, itself left out, within a circle."""
    steps = range(-reach, reach + 1)
    return [(spacing * y, spacing * x) for y in steps for x in steps if 0 < y * y + x * x <= (reach + 0.5) ** 2]


def _colours(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> Tensor:
    """Colours (3, h, w) in 0..255."""
    return shrink(Image.fromarray(image), size_hw).permute(2, 0, 1).float().contiguous()
