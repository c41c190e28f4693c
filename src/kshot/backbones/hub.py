"""Vision transformers of the transformers library: by short name, Hub id or local folder.

ViT (Dosovitskiy et al., ICLR 2021), DINOv2 (Oquab et al., TMLR 2024) with and without registers (Darcet et al.,
ICLR 2024), DINOv3 (Siméoni et al., 2025) and CLIP's vision tower alone (Radford et al., ICML 2021; a whole CLIP model
is loaded by `clip`, unless layers of its tower are asked for). kshot prepares the images itself, from the mean and
standard deviation beside the weights: no image processor is involved.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Encoding, Spec, fingerprint
from kshot.backbones.headed import INNER_BLOCK, check_depth
from kshot.errors import BackboneError, SettingError
from kshot.io import hub

_DINOV3_LICENCE = "DINOv3 License (gated: accept it on the Hub, then set HF_TOKEN)"


def _dinov2(size: str, dim: int, registers: bool = False) -> Spec:
    middle, suffix = ("with-registers-", "-registers") if registers else ("", "")
    source = f"facebook/dinov2-{middle}{size}"
    return Spec(f"dinov2-{size}{suffix}", 14, dim, licence="Apache-2.0", source=source)


def _dinov3(size: str, letter: str, dim: int) -> Spec:
    return Spec(
        f"dinov3-{size}", 16, dim, licence=_DINOV3_LICENCE, source=f"facebook/dinov3-vit{letter}16-pretrain-lvd1689m"
    )


_HALF = (0.5, 0.5, 0.5)
_VIT_SIZE = 512  # with log_n_scaled_attention; 384, 576 and 640 are worse on photographs with ViT-Tiny
SPECS = {
    spec.name: spec
    for spec in (
        Spec(
            "vit-tiny",
            16,
            192,
            _HALF,
            _HALF,
            ("10", "12", "k10", "k12"),
            "Apache-2.0",
            "WinKawaks/vit-tiny-patch16-224",
            size=_VIT_SIZE,
        ),
        *(_dinov2(size, dim) for size, dim in (("small", 384), ("base", 768), ("large", 1024))),
        *(_dinov2(size, dim, registers=True) for size, dim in (("small", 384), ("base", 768), ("large", 1024))),
        *(_dinov3(*row) for row in (("small", "s", 384), ("base", "b", 768), ("large", "l", 1024))),
    )
}


def log_n_scaled_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention (b, heads, n, d) that stays as sharp as in training where the image has more patches than there.

    A softmax over more tokens is flatter, so its logits are scaled by the logarithm of their number (Chiang & Cholak,
    "Overcoming a theoretical limitation of self-attention", ACL 2022). At 448 pixels instead of 224 that is worth 2 to
    4 points of IoU on photographs with ViT-Tiny, and costs nothing.
    """
    size, patch = (_sides(side) for side in (module.config.image_size, module.config.patch_size))
    trained = max(2, (size[0] // patch[0]) * (size[1] // patch[1]))
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        # The number of patches is a variable of a traced network, and so is the factor.
        query = query * (torch.as_tensor(key.shape[2] - 1).float().log() / math.log(trained)).clamp(min=1.0)
    else:
        scaling *= max(1.0, math.log(max(2, key.shape[2] - 1)) / math.log(trained))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return mixed.transpose(1, 2), None


def _sides(side: Any) -> tuple[int, int]:
    """Height and width of what a config gives as one number or two."""
    return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))


@dataclass(frozen=True)
class _Architecture:
    """What transformers calls the parts of one architecture, and how kshot runs it."""

    loader: str
    """Class that loads it."""
    blocks: str
    """Path of the list of its blocks."""
    before: str = "norm1"
    """Norm of a block before the attention."""
    final: str = "layernorm"
    """Norm after the last block."""
    attention: str = "attention"
    """Attention of a block."""
    attend: Callable[..., Any] | None = None
    """Attention function instead of its own."""
    size: int = 448
    """Default working size, see `Spec.size`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the loader."""
    call: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of each forward pass."""


_FACETS = {"k": "k_proj", "v": "v_proj"}  # keys and values of an attention
# Raised when the same weights give other features or tokens: what was cached or fitted before is then foreign.
_FEATURES_VERSION = 3
_RESAMPLED = {"interpolate_pos_encoding": True}
_CLIP = _Architecture(
    "CLIPVisionModel", "encoder.layers", "layer_norm1", "post_layernorm", "self_attn", call=_RESAMPLED
)
_ARCHITECTURES = {
    "vit": _Architecture(
        "ViTModel",
        "layers",
        "layernorm_before",
        attend=log_n_scaled_attention,
        size=_VIT_SIZE,
        arguments={"add_pooling_layer": False},
        call=_RESAMPLED,
    ),
    "dinov2": _Architecture("Dinov2Model", "encoder.layer"),
    "dinov2_with_registers": _Architecture("Dinov2WithRegistersModel", "encoder.layer"),
    "dinov3_vit": _Architecture("DINOv3ViTModel", "model.layer", final="norm"),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
}


class HubBackbone:
    """A vision transformer that gives the patch tokens of one or several layers, side by side.

    A layer is the output of a block after the model's last norm ("12"), the keys of its attention ("k12"), which tell
    parts of things apart better than outputs do (Amir et al., "Deep ViT features as dense visual descriptors"), or its
    values ("v12").
    """

    def __init__(self, spec: Spec, model: Any, device: torch.device, dtype: torch.dtype):
        self.spec, self.device, self.dtype = spec, device, dtype
        self.kind = _ARCHITECTURES[model.config.model_type]
        self.blocks = self.kind.blocks
        self.depth = int(model.config.num_hidden_layers)
        self.layers = spec.layers or (str(self.depth),)
        self.width = int(model.config.hidden_size)
        known = {f"{facet}{n}" for facet in ("", *_FACETS) for n in range(1, self.depth + 1)}
        if not set(self.layers) <= known:
            raise SettingError(
                f"{spec.name} has layers 1..{self.depth}, their keys k1..k{self.depth} and values v1..v{self.depth}, "
                f"got {', '.join(self.layers)}"
            )
        facts = self.layers, spec.patch, spec.mean_rgb, spec.std_rgb, _FEATURES_VERSION
        self.identity = fingerprint(dict(model.state_dict()), *facts)
        self.model = model.to(device, dtype).eval().requires_grad_(False)

    def __reduce__(self) -> tuple[Any, ...]:
        # transformers records hidden states through hooks that do not survive pickling: load anew instead.
        return load, (self.spec.name, self.device, self.dtype, self.layers)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into (b, dim * layers, H / patch, W / patch), each layer of unit length.

        The token is the class token at the same layers, so that it compares with the patch tokens.
        """
        return self._encoding(*self._run(pixels, self.layers != (str(self.depth),)))

    @torch.inference_mode()
    def encode_inner(self, pixels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Features and token as `encode` gives them, and what heads are put on: (b, width, gh, gw).

        That is the output of the block `INNER_BLOCK` from the end after the model's last norm. Raises `BackboneError`.
        """
        check_depth(self.spec.name, self.depth)
        out, grid_hw = self._run(pixels, True)
        dense, token, _ = self._encoding(out, grid_hw)
        inner = self._tokens(out, str(self.depth + 1 - INNER_BLOCK), grid_hw[0] * grid_hw[1])[:, 1:].float()
        return dense, token, on_grid(inner, grid_hw)

    def learnable(self, pixels: Tensor) -> Encoding:
        """As `encode`, with gradients."""
        return self._encoding(*self._run(pixels, self.layers != (str(self.depth),)))

    def copied(self) -> "HubBackbone":
        """The same backbone in float32 with weights of its own, whose identity is theirs."""
        return HubBackbone(self.spec, copy.deepcopy(self.model), self.device, torch.float32)

    def save(self, folder: Path, facts: Mapping[str, Any]) -> Path:
        """Write float16 weights, config.json and the mean and standard deviation of pixels; raises `OutputError`."""
        return hub.save_model(self.model, folder, self.spec.mean_rgb, self.spec.std_rgb, facts)

    def values(self) -> "HubBackbone":
        """The same model, read at the values of its last attention."""
        return HubBackbone(replace(self.spec, layers=(f"v{self.depth}",)), self.model, self.device, self.dtype)

    def _run(self, pixels: Tensor, inner: bool) -> tuple[Any, tuple[int, int]]:
        """The model's output, with all hidden states if `inner`, and the grid."""
        grid_hw = pixels.shape[2] // self.spec.patch, pixels.shape[3] // self.spec.patch
        pixels = pixels.to(self.device, self.dtype)
        return self.model(pixel_values=pixels, output_hidden_states=inner, **self.kind.call), grid_hw

    def _encoding(self, out: Any, grid_hw: tuple[int, int]) -> Encoding:
        count = grid_hw[0] * grid_hw[1]
        layers = [F.normalize(self._tokens(out, layer, count).float(), dim=-1) for layer in self.layers]
        tokens = torch.cat(layers, -1)  # (b, 1 + count, dim * layers)
        return Encoding(on_grid(tokens[:, 1:], grid_hw), F.normalize(tokens[:, 0], dim=-1))

    def _tokens(self, out: Any, layer: str, count: int) -> Tensor:
        """(b, 1 + count, dim) of one layer: the class token and the `count` patch tokens."""
        number = int(layer.lstrip("kv"))
        tokens: Tensor
        if layer == str(self.depth) and self.kind is not _CLIP:
            tokens = _class_and_patches(out.last_hidden_state, count)
        elif layer[0] in _FACETS:
            block = self.model.get_submodule(self.kind.blocks)[number - 1]
            normed = getattr(block, self.kind.before)(_class_and_patches(out.hidden_states[number - 1], count))
            tokens = getattr(getattr(block, self.kind.attention), _FACETS[layer[0]])(normed)
        else:  # CLIP leaves the last norm to the class token alone, so its outputs are normed here too
            hidden = out.last_hidden_state if number == self.depth else out.hidden_states[number]
            tokens = self.model.get_submodule(self.kind.final)(_class_and_patches(hidden, count))
        return tokens


def _class_and_patches(hidden: Tensor, count: int) -> Tensor:
    """Leave out the register tokens, which lie between the class token and the patch tokens."""
    return torch.cat([hidden[:, :1], hidden[:, -count:]], 1)


def on_grid(tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """(b, gh * gw, c) as (b, c, gh, gw)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid_hw)


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> HubBackbone:
    """Load a short name, Hub id or local folder; see `load_backbone` for the errors."""
    known = SPECS.get(name)
    folder = hub.find_folder(known.source if known else name, name)
    config = _config(folder)
    if layers is None:
        layers = known.layers if known else _default_layers(config)
    spec = _spec(name, folder, config, layers)
    kind = _ARCHITECTURES[config["model_type"]]
    return HubBackbone(spec, hub.load_model(folder, kind.loader, kind.attend, **kind.arguments), device, dtype)


def _default_layers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """A supervised ViT's last block knows classes better than parts, so it is not left alone (benchmarks/accuracy)."""
    if config["model_type"] != "vit":
        return ()
    last = int(config["num_hidden_layers"])
    middle = max(1, round(last * 5 / 6))
    return (str(middle), str(last), f"k{middle}", f"k{last}")


def _config(folder: Path) -> dict[str, Any]:
    config = hub.read_config(folder)
    if config.get("model_type") not in _ARCHITECTURES:
        kinds = ", ".join(_ARCHITECTURES)
        raise BackboneError(f"{folder}: a model of type {config.get('model_type')!r}; kshot reads {kinds}")
    return config


def _spec(name: str, folder: Path, config: dict[str, Any], layers: tuple[str, ...]) -> Spec:
    vision = config.get("vision_config") or config
    mean, std = hub.image_mean_std(folder)
    facts = SPECS.get(name) or Spec(name, 0, 0, licence="see the model's own page", source=name)
    return replace(
        facts,
        patch=int(vision["patch_size"]),
        dim=int(vision["hidden_size"]),
        mean_rgb=mean or facts.mean_rgb,
        std_rgb=std or facts.std_rgb,
        layers=tuple(layers),
        size=_ARCHITECTURES[config["model_type"]].size,
    )
