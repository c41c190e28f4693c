"""`tiny`, the encoder inside kshot, and others of its kind: small, quick on a CPU, no network and no download.

A plain vision transformer (Dosovitskiy et al., ICLR 2021) of the size of ViT-Tiny. Its features are the outputs of two
blocks side by side, since the last one knows classes better than parts, behind a linear readout. Objectness is read
from the same outputs. Position embeddings are resampled, and attention stays as sharp as at the size of training, so
any image size goes; the features of an image never depend on its batch.

`kshot train finetune` teaches such encoders to compare, `kshot train distill` makes them from other backbones.
docs/models/tiny.md tells what `tiny` learned from and how well it does.
"""

import copy
import hashlib
import json
import math
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

KIND, WEIGHTS, CONFIG = "kshot-vit", "model.safetensors", "config.json"
_OLD_KIND = "kshot-net"  # a hybrid of convolutions and attention
STRIDE = 16  # side of a patch, pixels
_NORM_EPS = 1e-12  # as of the ViT that the packed weights started from


@dataclass(frozen=True)
class NetSizes:
    """Widths and depths of a `Net`."""

    dim: int = 384
    """Channels of the features."""
    width: int = 192
    """Channels of a block."""
    blocks: int = 12
    """Blocks of attention and a two-layer perceptron."""
    heads: int = 3
    """Heads of each attention."""
    grid: int = 14
    """Position embeddings a side, which are resampled to the grid of an image."""
    layers: tuple[int, ...] = (10, 12)
    """Blocks, counted from 1, whose outputs the features are read from; the last block is the last of them."""


class Output(NamedTuple):
    """dense: (b, dim, H / 16, W / 16). token: (b, dim). objectness: (b, H / 16, W / 16) logits."""

    dense: Tensor
    token: Tensor
    objectness: Tensor


class Net(nn.Module):
    """The network: normalised images (b, 3, H, W), sides multiples of 16, to an `Output`."""

    input_and_output_layers = ("patches", "position", "token", "readout", "whole", "object")

    def __init__(self, sizes: NetSizes):
        super().__init__()
        self.sizes = sizes
        self.patches = nn.Conv2d(3, sizes.width, STRIDE, stride=STRIDE)
        self.token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.position = nn.Parameter(torch.zeros(1, 1 + sizes.grid**2, sizes.width))
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.heads) for _ in range(sizes.blocks))
        self.norm = nn.LayerNorm(sizes.width, eps=_NORM_EPS)
        read = sizes.width * len(sizes.layers)
        self.readout, self.whole = nn.Linear(read, sizes.dim), nn.Linear(read, sizes.dim)  # of patches, of the image
        self.object = nn.Linear(read, 1)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.zeros_(self.object.weight)

    def forward(self, pixels: Tensor) -> Output:
        """Encode normalised images (b, 3, H, W)."""
        patches = self.patches(pixels)  # (b, width, gh, gw)
        grid_hw = patches.shape[2:]
        tokens = torch.cat([self.token.expand(pixels.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + self._positions(grid_hw)
        scale = self._attention_scale(grid_hw[0] * grid_hw[1]).to(tokens.dtype)
        read = []
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens, scale)
            if number in self.sizes.layers:  # each of the same length, so that none outweighs another
                read.append(F.normalize(self.norm(tokens).float(), dim=-1) * self.sizes.width**0.5)
        layers = torch.cat(read, -1).to(self.readout.weight.dtype)  # (b, 1 + gh * gw, width * layers)
        # What stands out is learned from features as they are, and does not change them.
        objectness = self.object(layers[:, 1:].detach())[..., 0].unflatten(1, grid_hw)
        dense = self.readout(layers[:, 1:]).transpose(1, 2).unflatten(2, grid_hw)
        return Output(dense, self.whole(layers[:, 0]), objectness)

    def _positions(self, grid_hw: torch.Size) -> Tensor:
        """Position embeddings (1, 1 + gh * gw, width) for a grid."""
        side, width = self.sizes.grid, self.sizes.width
        planes = self.position[:, 1:].transpose(1, 2).reshape(1, width, side, side)
        planes = F.interpolate(planes, size=tuple(grid_hw), mode="bicubic", align_corners=False)
        return torch.cat([self.position[:, :1], planes.flatten(2).transpose(1, 2)], 1)

    def _attention_scale(self, count: int) -> Tensor:
        """() factor on the products of queries and keys for `count` patches, see `hub.log_n_scaled_attention`.

        A tensor, so that an exported network computes it for images of any size.
        """
        patches = torch.full((), count, dtype=torch.float32, device=self.position.device)
        trained = math.log(max(2, self.sizes.grid**2))
        sharper = (patches.log() / trained).clamp(min=1.0)
        return sharper * float((self.sizes.width // self.sizes.heads) ** -0.5)

    @torch.no_grad()
    def init_output_bias(self, dense: Tensor, token: Tensor) -> None:
        """Start training from the mean of the targets, (dim,) each, so that nothing has to be unlearned first."""
        for layer, mean in ((self.readout, dense), (self.whole, token)):
            layer.bias.copy_(mean)
            layer.weight.mul_(0.1)

    @torch.no_grad()
    def match_variance(self, dense: tuple[float, Tensor, Tensor], token: tuple[float, Tensor, Tensor]) -> None:
        """Scale the outputs around their mean, so that they vary as much as the targets do.

        dense, token: (factor, mean of the output now, mean that it shall have), the means (dim,).
        """
        for layer, (factor, before, after) in ((self.readout, dense), (self.whole, token)):
            layer.weight.mul_(factor)
            layer.bias.mul_(factor).add_(after - factor * before)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and beside the identity."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = (nn.LayerNorm(width, eps=_NORM_EPS) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, scale: Tensor) -> Tensor:
        """Tokens (b, n, width) to tokens of the same shape. scale: () factor on the products of queries and keys."""
        tokens = tokens + self._attend(self.norm_attention(tokens), scale)
        changed: Tensor = self.down(F.gelu(self.up(self.norm_mlp(tokens))))
        return tokens + changed

    def _attend(self, tokens: Tensor, scale: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (b, heads, n, width / heads) each
        query = query * scale
        if torch.is_grad_enabled():  # on a CPU the fused kernel's backward takes several times as long
            mixed = (query @ key.transpose(2, 3)).softmax(-1).to(value.dtype) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        return found


_PACKED = "tiny.safetensors"
MEAN_STD = (0.5, 0.5, 0.5)
_SIZE = 432  # working size
SPECS = {
    "tiny": Spec(
        "tiny",
        STRIDE,
        NetSizes.dim,
        MEAN_STD,
        MEAN_STD,
        licence="Apache-2.0",
        source="kshot",
        sha256="a43c5d27c5f1722b6e99da68cab9ffa8dbf0dc6b8b186e3c2d7a01342fc6f68b",
        note="inside kshot; a ViT-Tiny (Apache-2.0) that learned to compare, see docs/models/tiny.md",
        size=_SIZE,
    )
}


class Tiny:
    """A trained `Net` as a backbone: patch tokens of 16 pixels, a vector for the whole image, and objectness."""

    blocks = "blocks"

    def __init__(self, spec: Spec, model: Net, device: torch.device, dtype: torch.dtype):
        self.spec, self.device, self.dtype = spec, device, dtype
        self.identity = fingerprint(dict(model.state_dict()), asdict(model.sizes), spec.mean_rgb, spec.std_rgb)
        self.model = model.to(device, dtype).eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into (b, dim, H / 16, W / 16), with token (b, dim) and objectness (b, H / 16, W / 16)."""
        out: Output = self.model(pixels.to(self.device, self.dtype))
        dense = F.normalize(out.dense.float(), dim=1).contiguous()
        return Encoding(dense, F.normalize(out.token.float(), dim=1), out.objectness.float().sigmoid())

    def learnable(self, pixels: Tensor) -> Encoding:
        """As `encode`, with gradients, and with logits of objectness instead of probabilities."""
        out: Output = self.model(pixels.to(self.device))
        token = F.normalize(out.token.float(), dim=1)
        return Encoding(F.normalize(out.dense.float(), dim=1), token, out.objectness.float())

    def copied(self) -> "Tiny":
        """The same encoder in float32 with weights of its own, whose identity is theirs."""
        return Tiny(self.spec, copy.deepcopy(self.model).float(), self.device, torch.float32)

    def save(self, folder: Path, facts: Mapping[str, Any]) -> Path:
        """Write it as a folder that `--backbone` takes; see `save`."""
        return save(self.model, folder, facts)


def from_vit(name: str, device: torch.device) -> Tiny:
    """A vision transformer of transformers (type "vit", patches of 16 pixels) as an encoder of this kind.

    Its features are those of `hub` at the blocks 5/6 of the depth and the last; objectness has yet to be learned.
    name: Hub id or folder. Raises `BackboneError` for other models, and `WeightsNotFoundError`.
    """
    folder = hub.find_folder(name, name)
    config = hub.read_config(folder)
    expected = {"model_type": "vit", "patch_size": STRIDE, "hidden_act": "gelu", "qkv_bias": True}
    wrong = [key for key, value in expected.items() if config.get(key, value) != value]
    if wrong or config["intermediate_size"] != 4 * config["hidden_size"] or hub.image_mean_std(folder)[0] != MEAN_STD:
        raise BackboneError(f"{name}: no ViT of 16 pixel patches such as ViT-Tiny; kshot's network cannot hold it")
    model = hub.load_model(folder, "ViTModel", add_pooling_layer=False)
    depth, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
    layers = (max(1, round(depth * 5 / 6)), depth)
    sizes = NetSizes(
        dim=width * len(layers),
        width=width,
        blocks=depth,
        heads=int(config["num_attention_heads"]),
        grid=int(config["image_size"]) // STRIDE,
        layers=layers,
    )
    net = Net(sizes)
    for layer in (net.readout, net.whole):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    net.load_state_dict(net.state_dict() | _renamed(model.state_dict(), depth))
    spec = Spec(name, STRIDE, sizes.dim, MEAN_STD, MEAN_STD, source=name, size=_SIZE)
    return Tiny(spec, net, device, torch.float32)


_OF_VIT = {  # names of a `Net`, and of transformers' `ViTModel`
    "token": "embeddings.cls_token",
    "position": "embeddings.position_embeddings",
    "patches.": "embeddings.patch_embeddings.projection.",
    "norm.": "layernorm.",
}
_OF_VIT_BLOCK = {
    "norm_attention": "layernorm_before",
    "norm_mlp": "layernorm_after",
    "out": "attention.o_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}


def _renamed(weights: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The weights of a `ViTModel` under the names of a `Net`."""
    found = {
        own + name[len(theirs) :]: tensor
        for own, theirs in _OF_VIT.items()
        for name, tensor in weights.items()
        if name.startswith(theirs)
    }
    for number in range(blocks):
        for part in ("weight", "bias"):
            for own, theirs in _OF_VIT_BLOCK.items():
                found[f"blocks.{number}.{own}.{part}"] = weights[f"layers.{number}.{theirs}.{part}"]
            parts = [weights[f"layers.{number}.attention.{each}_proj.{part}"] for each in "qkv"]
            found[f"blocks.{number}.qkv.{part}"] = torch.cat(parts)
    return found


def reads(folder: Path) -> bool:
    """Whether a folder holds an encoder that `kshot train` made."""
    path = folder / CONFIG
    return path.is_file() and hub.read_config(folder).get("model_type") in (KIND, _OLD_KIND)


def load_packed(data: bytes, where: str, sizes: NetSizes) -> Net:
    """A `Net` from the bytes of a safetensors file; raises `BackboneError` when they are no such thing."""
    try:
        tensors = {name: tensor.float() for name, tensor in from_bytes(data).items()}
        if min(sizes.dim, sizes.width, sizes.blocks, sizes.heads, sizes.grid, len(sizes.layers)) < 1:
            raise KeyError("a size of none")
        if sizes.width % sizes.heads:
            raise KeyError("heads that do not divide the width")
        if max(sizes.blocks, len(sizes.layers)) > len(tensors) or not {*sizes.layers} <= {*range(1, sizes.blocks + 1)}:
            raise KeyError("more blocks than it has tensors, or layers that it has not")
        with torch.device("meta"):  # the shapes alone: wrong sizes may ask for any memory
            model = Net(sizes)
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        wrong = sorted(name for name in expected.keys() | tensors if not _fits(expected.get(name), tensors.get(name)))
        if wrong:
            raise KeyError(f"{wrong[0]} is missing, or of another shape")
        model.load_state_dict(tensors, assign=True)
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


def packed() -> Net:
    """The network of `tiny` with its weights; raises `BackboneError` for a damaged installation."""
    data = resources.files("kshot.backbones").joinpath(_PACKED).read_bytes()
    found, stated = hashlib.sha256(data).hexdigest(), SPECS["tiny"].sha256
    if found != stated:
        raise BackboneError(f"{_PACKED} inside kshot has sha256 {found}, not {stated}; install kshot again")
    return load_packed(data, _PACKED, NetSizes())


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Tiny:
    """The packed encoder, or a folder with one; see `load_backbone` for the errors."""
    refuse_layers(name, layers)
    if name in SPECS:
        return Tiny(SPECS[name], packed(), device, dtype)
    folder = hub.find_folder(name, name)
    config = hub.read_config(folder)
    if config["model_type"] == _OLD_KIND:
        raise BackboneError(f"{folder}: an encoder of an earlier kshot (0.1 before its release); train it again")
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["plan"].items()}
    sizes = NetSizes(**plain)
    licence = config.get("licence", "")
    spec = Spec(name, STRIDE, sizes.dim, MEAN_STD, MEAN_STD, licence=licence, source=name, size=_SIZE)
    return Tiny(spec, load_packed((folder / WEIGHTS).read_bytes(), str(folder / WEIGHTS), sizes), device, dtype)
