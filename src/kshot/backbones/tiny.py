"""`tiny`, the encoder inside kshot, and others of its kind: small, quick on a CPU, no network and no download.

A hybrid in the spirit of early convolutions (Xiao et al., NeurIPS 2021) and of feature pyramids (Lin et al., CVPR
2017): convolutions down to a sixteenth of the image's size, attention there, and a fine path at an eighth. Attention
decides what a patch token shows, as it sees the whole image; the finer convolutions decide where it ends. There are no
position embeddings, so any size goes, and no batch statistics, so the features of an image never depend on its batch.

`kshot train distill` makes such encoders; docs/models/tiny.md tells what `tiny` learned from and how well it does.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.backbones.base import Encoding, Spec, fingerprint, refuse_layers
from kshot.errors import BackboneError
from kshot.io import hub
from kshot.io.atomic import atomic_path, write_text

KIND, WEIGHTS, CONFIG = "kshot-net", "model.safetensors", "config.json"
STRIDE = 8  # side of a patch, pixels


@dataclass(frozen=True)
class NetSizes:
    """Widths and depths of a `Net`."""

    dim: int = 256
    """Channels of the features."""
    quarter: int = 32
    """Channels at a quarter of the image's size."""
    eighth: int = 64
    """Channels at an eighth."""
    sixteenth: int = 256
    """Channels at a sixteenth, where the attention is."""
    residuals: tuple[int, int, int] = (1, 1, 2)
    """Residual blocks of two convolutions at each of the three scales, the finest first."""
    blocks: int = 3
    """Attention blocks."""
    heads: int = 4
    """Heads of each attention."""


class Output(NamedTuple):
    """dense: (b, dim, H / 8, W / 8). token: (b, dim). objectness: (b, H / 8, W / 8) logits."""

    dense: Tensor
    token: Tensor
    objectness: Tensor


class Net(nn.Module):
    """The network: normalised images (b, 3, H, W), sides multiples of 8, to an `Output`."""

    input_and_output_layers = ("stem.0", "coarse", "whole", "detail", "object")

    def __init__(self, sizes: NetSizes):
        super().__init__()
        self.sizes = sizes
        quarter, eighth, sixteenth = sizes.quarter, sizes.eighth, sizes.sixteenth
        self.stem = nn.Sequential(_down(3, quarter), nn.ReLU(), _down(quarter, quarter))
        self.at_quarter = nn.Sequential(*(Residual(quarter) for _ in range(sizes.residuals[0])), Norm(quarter))
        self.to_eighth = _down(quarter, eighth)
        self.at_eighth = nn.Sequential(*(Residual(eighth) for _ in range(sizes.residuals[1])), Norm(eighth))
        self.to_sixteenth = _down(eighth, sixteenth)
        self.at_sixteenth = nn.Sequential(*(Residual(sixteenth) for _ in range(sizes.residuals[2])))
        self.attention = nn.Sequential(*(Block(sixteenth, sizes.heads) for _ in range(sizes.blocks)))
        self.norm = nn.LayerNorm(sixteenth)
        self.coarse = nn.Linear(sixteenth, sizes.dim)
        self.whole = nn.Linear(sixteenth, sizes.dim)
        self.narrow = nn.Linear(sixteenth, eighth)
        self.across = nn.Conv2d(eighth, eighth, 1)
        self.fine = nn.Sequential(Residual(eighth), Norm(eighth))
        self.detail = nn.Conv2d(eighth, sizes.dim, 1)
        self.object = nn.Conv2d(eighth, 1, 1)

    def forward(self, pixels: Tensor) -> Output:
        """Encode normalised images (b, 3, H, W)."""
        eighth = self.at_eighth(self.to_eighth(self.at_quarter(self.stem(pixels))))  # (b, eighth, H / 8, W / 8)
        planes = self.at_sixteenth(self.to_sixteenth(eighth))  # (b, sixteenth, H / 16, W / 16)
        grid_hw = planes.shape[2:]
        tokens = self.norm(self.attention(planes.flatten(2).transpose(1, 2)))  # (b, n, sixteenth)
        fine = self.fine(self.across(eighth) + _upsample(self.narrow(tokens), grid_hw, eighth))
        dense = self.detail(fine) + _upsample(self.coarse(tokens), grid_hw, eighth)
        return Output(dense, self.whole(tokens.mean(1)), self.object(fine)[:, 0])

    @torch.no_grad()
    def init_output_bias(self, dense: Tensor, token: Tensor) -> None:
        """Start training from the mean of the targets, (dim,) each, so that nothing has to be unlearned first."""
        for layer, mean in ((self.coarse, dense), (self.whole, token)):
            layer.bias.copy_(mean)
            layer.weight.mul_(0.1)
        self.detail.weight.mul_(0.1)
        nn.init.zeros_(self.get_parameter("detail.bias"))

    @torch.no_grad()
    def match_variance(self, dense: tuple[float, Tensor, Tensor], token: tuple[float, Tensor, Tensor]) -> None:
        """Scale the outputs around their mean, so that they vary as much as the targets do.

        dense, token: (factor, mean of the output now, mean that it shall have), the means (dim,).
        """
        for layers, (factor, before, after) in (((self.coarse, self.detail), dense), ((self.whole,), token)):
            for layer in layers:
                layer.weight.mul_(factor)
                layer.get_parameter("bias").mul_(factor)
            layers[0].get_parameter("bias").add_(after - factor * before)

    def channels_last(self) -> "Net":
        """This network, its kernels in the memory layout in which a CPU's convolutions are fast."""
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
        """Planes (b, c, h, w) to planes of the same shape."""
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
        """Tokens (b, n, c) to tokens of the same shape."""
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


def _upsample(tokens: Tensor, grid_hw: torch.Size, like: Tensor) -> Tensor:
    """Tokens (b, n, c) of a grid as planes of the size of `like`, bilinear."""
    planes = tokens.transpose(1, 2).unflatten(2, grid_hw)
    return F.interpolate(planes, size=like.shape[2:], mode="bilinear", align_corners=False)


_PACKED = "tiny.safetensors"
_PACKED_SIZES = NetSizes(dim=192, residuals=(1, 1, 1), blocks=4)
SPECS = {
    "tiny": Spec(
        "tiny",
        STRIDE,
        192,
        licence="Apache-2.0",
        source="kshot",
        sha256="11c860c2453996d563c8e22583f0d25ad61a4ba843dc92ef81e6ec61de2bbc7c",
        note="inside kshot; distilled from ViT-Tiny (Apache-2.0), see docs/models/tiny.md",
        size=384,
    )
}


class Tiny:
    """A trained `Net` as a backbone: patch tokens of 8 pixels, a vector for the whole image, and objectness."""

    def __init__(self, spec: Spec, model: Net, device: torch.device, dtype: torch.dtype):
        self.spec, self.device, self.dtype = spec, device, dtype
        self.identity = fingerprint(dict(model.state_dict()), asdict(model.sizes), spec.mean_rgb, spec.std_rgb)
        self.model = model.to(device, dtype).channels_last().eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into (b, dim, H / 8, W / 8), with token (b, dim) and objectness (b, H / 8, W / 8)."""
        pixels = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
        out = self.model(pixels)
        dense = F.normalize(out.dense.float(), dim=1).contiguous()
        return Encoding(dense, F.normalize(out.token.float(), dim=1), out.objectness.float().sigmoid())


def reads(folder: Path) -> bool:
    """Whether a folder holds an encoder that `kshot train distill` made."""
    path = folder / CONFIG
    return path.is_file() and hub.read_config(folder).get("model_type") == KIND


def load_packed(data: bytes, where: str, sizes: NetSizes) -> Net:
    """A `Net` from the bytes of a safetensors file; raises `BackboneError` when they are no such thing."""
    try:
        tensors = {name: tensor.float() for name, tensor in from_bytes(data).items()}
        if min(sizes.dim, sizes.quarter, sizes.eighth, sizes.sixteenth, sizes.heads) < 1:
            raise KeyError("a size of none")
        if max(sizes.blocks, *sizes.residuals) > len(tensors):
            raise KeyError("more blocks than it has tensors")
        with torch.device("meta"):  # the shapes alone: wrong sizes may ask for any memory
            expected = {name: tensor.shape for name, tensor in Net(sizes).state_dict().items()}
        wrong = sorted(name for name in expected.keys() | tensors if not _fits(expected.get(name), tensors.get(name)))
        if wrong:
            raise KeyError(f"{wrong[0]} is missing, or of another shape")
        model = Net(sizes)
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise BackboneError(f"{where}: no encoder of these sizes ({error}); train or copy it again") from error
    return model


def _fits(shape: torch.Size | None, tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.shape == shape


def save(model: Net, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write an encoder as a folder that `--backbone` takes: float16 weights and config.json. Raises `OutputError`."""
    with atomic_path(folder / WEIGHTS) as beside:
        save_file({name: tensor.half().cpu().contiguous() for name, tensor in model.state_dict().items()}, beside)
    config = {"model_type": KIND, "plan": asdict(model.sizes), **facts}
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return folder


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Tiny:
    """The packed encoder, or a folder with one; see `load_backbone` for the errors."""
    refuse_layers(name, layers)
    if name in SPECS:
        spec = SPECS[name]
        data = resources.files("kshot.backbones").joinpath(_PACKED).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != spec.sha256:
            raise BackboneError(f"{_PACKED} inside kshot has sha256 {found}, not {spec.sha256}; install kshot again")
        return Tiny(spec, load_packed(data, _PACKED, _PACKED_SIZES), device, dtype)
    folder = hub.find_folder(name, name)
    config = hub.read_config(folder)
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["plan"].items()}
    sizes = NetSizes(**plain)
    spec = Spec(name, STRIDE, sizes.dim, licence=config.get("licence", ""), source=name)
    return Tiny(spec, load_packed((folder / WEIGHTS).read_bytes(), str(folder / WEIGHTS), sizes), device, dtype)
