"""The network behind `tiny`: convolutions down to a sixteenth, attention there, and a fine path at an eighth.

A hybrid in the spirit of early convolutions (Xiao et al., NeurIPS 2021) and of feature pyramids (Lin et al., CVPR
2017). What a cell shows is decided where attention sees the whole image; where it ends, by the finer convolutions.
There are no position embeddings, so any size goes, and no batch statistics, so an image never depends on its batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8  # pixels that a cell is wide


@dataclass(frozen=True)
class Plan:
    """Sizes of the network. dim: channels that come out. quarter, eighth, sixteenth: channels at these scales.

    residuals: blocks of two convolutions at each of the three scales. blocks: of attention. heads: of each.
    """

    dim: int = 256
    quarter: int = 32
    eighth: int = 64
    sixteenth: int = 256
    residuals: tuple[int, int, int] = (1, 1, 2)
    blocks: int = 3
    heads: int = 4


class Output(NamedTuple):
    """dense: (b, dim, H / 8, W / 8). token: (b, dim). objectness: (b, H / 8, W / 8) logits."""

    dense: Tensor
    token: Tensor
    objectness: Tensor


class Net(nn.Module):
    """Pictures (b, 3, H, W), sides multiples of 8, to an `Output`."""

    ends = ("stem.0", "coarse", "whole", "detail", "object")  # layers that read the pixels or give the answer

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        quarter, eighth, sixteenth = plan.quarter, plan.eighth, plan.sixteenth
        self.stem = nn.Sequential(_down(3, quarter), nn.ReLU(), _down(quarter, quarter))
        self.at_quarter = nn.Sequential(*(Residual(quarter) for _ in range(plan.residuals[0])), Norm(quarter))
        self.to_eighth = _down(quarter, eighth)
        self.at_eighth = nn.Sequential(*(Residual(eighth) for _ in range(plan.residuals[1])), Norm(eighth))
        self.to_sixteenth = _down(eighth, sixteenth)
        self.at_sixteenth = nn.Sequential(*(Residual(sixteenth) for _ in range(plan.residuals[2])))
        self.attention = nn.Sequential(*(Block(sixteenth, plan.heads) for _ in range(plan.blocks)))
        self.norm = nn.LayerNorm(sixteenth)
        self.coarse = nn.Linear(sixteenth, plan.dim)
        self.whole = nn.Linear(sixteenth, plan.dim)
        self.narrow = nn.Linear(sixteenth, eighth)
        self.across = nn.Conv2d(eighth, eighth, 1)
        self.fine = nn.Sequential(Residual(eighth), Norm(eighth))
        self.detail = nn.Conv2d(eighth, plan.dim, 1)
        self.object = nn.Conv2d(eighth, 1, 1)

    def forward(self, pixels: Tensor) -> Output:
        """Encode pictures of normalised colours."""
        eighth = self.at_eighth(self.to_eighth(self.at_quarter(self.stem(pixels))))  # (b, eighth, H / 8, W / 8)
        planes = self.at_sixteenth(self.to_sixteenth(eighth))  # (b, sixteenth, H / 16, W / 16)
        grid_hw = planes.shape[2:]
        tokens = self.norm(self.attention(planes.flatten(2).transpose(1, 2)))  # (b, n, sixteenth)
        fine = self.fine(self.across(eighth) + _raised(self.narrow(tokens), grid_hw, eighth))
        dense = self.detail(fine) + _raised(self.coarse(tokens), grid_hw, eighth)
        return Output(dense, self.whole(tokens.mean(1)), self.object(fine)[:, 0])

    @torch.no_grad()
    def begin(self, dense: Tensor, token: Tensor) -> None:
        """Start from the mean of what is to come out, (dim,) each, so that nothing has to be unlearned first."""
        for layer, mean in ((self.coarse, dense), (self.whole, token)):
            layer.bias.copy_(mean)
            layer.weight.mul_(0.1)
        self.detail.weight.mul_(0.1)
        nn.init.zeros_(self.get_parameter("detail.bias"))

    @torch.no_grad()
    def stretch(self, dense: tuple[float, Tensor, Tensor], token: tuple[float, Tensor, Tensor]) -> None:
        """Move what comes out away from its mean: (factor, mean as it is, mean as it shall be), means (dim,)."""
        for layers, (factor, before, after) in (((self.coarse, self.detail), dense), ((self.whole,), token)):
            for layer in layers:
                layer.weight.mul_(factor)
                layer.get_parameter("bias").mul_(factor)
            layers[0].get_parameter("bias").add_(after - factor * before)

    def channels_last(self) -> "Net":
        """The same network with kernels laid out as a CPU's convolutions like them."""
        for weight in self.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return self


class Norm(nn.LayerNorm):
    """Layer norm over the channels of planes (b, c, h, w)."""

    def forward(self, planes: Tensor) -> Tensor:
        """Normalise each pixel."""
        return super().forward(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = Norm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, planes: Tensor) -> Tensor:
        """(b, c, h, w) to the same."""
        changed: Tensor = self.second(F.relu(self.first(self.norm(planes))))
        return planes + changed


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and beside the identity."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, n, c) to the same."""
        tokens = tokens + self._attend(self.norm_attention(tokens))
        changed: Tensor = self.down(F.gelu(self.up(self.norm_mlp(tokens))))
        return tokens + changed

    def _attend(self, tokens: Tensor) -> Tensor:
        batch, count, channels = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (b, heads, n, c / heads) each
        if self.training:  # on a CPU the fused kernel's backward takes several times as long as these products
            weights = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(-1)
            mixed = weights.to(value.dtype) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value)
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, channels))
        return found


def _down(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=2, padding=1)


def _raised(tokens: Tensor, grid_hw: torch.Size, like: Tensor) -> Tensor:
    """Tokens (b, n, c) of a grid as planes of the size of `like`, bilinear."""
    planes = tokens.transpose(1, 2).unflatten(2, grid_hw)
    return F.interpolate(planes, size=like.shape[2:], mode="bilinear", align_corners=False)
