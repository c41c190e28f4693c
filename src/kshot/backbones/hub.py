"""Vision transformers of the transformers library: by short name, Hub id or local folder.

ViT (Dosovitskiy et al., ICLR 2021), DINOv2 (Oquab et al., TMLR 2024) with and without registers (Darcet et al.,
ICLR 2024), DINOv3 (Siméoni et al., 2025) and CLIP's vision tower (Radford et al., ICML 2021). The pictures are
prepared by kshot itself, from the mean and deviation beside the weights: no image processor is involved.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones import _weights
from kshot.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Encoding, Spec, fingerprint
from kshot.errors import BackboneError, SettingError

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
SPECS = {
    spec.name: spec
    for spec in (
        Spec("vit-tiny", 16, 192, _HALF, _HALF, (10, 12), "Apache-2.0", "WinKawaks/vit-tiny-patch16-224"),
        *(_dinov2(size, dim) for size, dim in (("small", 384), ("base", 768), ("large", 1024))),
        *(_dinov2(size, dim, registers=True) for size, dim in (("small", 384), ("base", 768), ("large", 1024))),
        *(_dinov3(*row) for row in (("small", "s", 384), ("base", "b", 768), ("large", "l", 1024))),
    )
}
# model_type in config.json -> class in transformers, and what its forward or constructor wants to be told.
_KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("ViTModel", {"add_pooling_layer": False}, {"interpolate_pos_encoding": True}),
    "dinov2": ("Dinov2Model", {}, {}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {}, {}),
    "dinov3_vit": ("DINOv3ViTModel", {}, {}),
    "clip": ("CLIPVisionModel", {}, {"interpolate_pos_encoding": True}),
    "clip_vision_model": ("CLIPVisionModel", {}, {"interpolate_pos_encoding": True}),
}


class HubBackbone:
    """A vision transformer that gives the patch tokens of one or several blocks, side by side."""

    def __init__(self, spec: Spec, model: Any, device: torch.device, dtype: torch.dtype):
        self.spec, self.device, self.dtype = spec, device, dtype
        self.depth = int(model.config.num_hidden_layers)
        self.layers = spec.layers or (self.depth,)
        if not set(self.layers) <= set(range(1, self.depth + 1)):
            raise SettingError(f"{spec.name} has layers 1..{self.depth}, got {', '.join(map(str, self.layers))}")
        self.identity = fingerprint(dict(model.state_dict()), self.layers, spec.patch, spec.mean_rgb, spec.std_rgb)
        self.model = model.to(device, dtype).eval().requires_grad_(False)
        self.extra = _KINDS[model.config.model_type][2]

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into (b, dim * layers, H / patch, W / patch), each layer of unit length."""
        grid_hw = pixels.shape[2] // self.spec.patch, pixels.shape[3] // self.spec.patch
        pixels = pixels.to(self.device, self.dtype)
        out = self.model(pixel_values=pixels, output_hidden_states=self.layers != (self.depth,), **self.extra)
        dense = torch.cat([self._patches(out, layer, grid_hw) for layer in self.layers], 1)
        return Encoding(dense, F.normalize(out.last_hidden_state[:, 0].float(), dim=-1))

    def _patches(self, out: Any, layer: int, grid_hw: tuple[int, int]) -> Tensor:
        # Class and register tokens come first, so the patches are the last rows * columns.
        tokens = out.last_hidden_state if layer == self.depth else out.hidden_states[layer]
        tokens = tokens[:, -grid_hw[0] * grid_hw[1] :].float()  # (b, gh * gw, dim)
        return F.normalize(tokens, dim=-1).transpose(1, 2).reshape(len(tokens), -1, *grid_hw)


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[int, ...] | None) -> HubBackbone:
    """Load a short name, Hub id or local folder; see `load_backbone` for the errors."""
    known = SPECS.get(name)
    folder = _weights.find_folder(known.source if known else name, name)
    config = _config(folder)
    spec = _spec(name, folder, config, layers if layers is not None else (known.layers if known else ()))
    return HubBackbone(spec, _model(folder, config), device, dtype)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except FileNotFoundError as error:
        raise BackboneError(f"{folder}: no config.json in it; give a folder that transformers can load") from error
    except ValueError as error:
        raise BackboneError(f"{folder / 'config.json'}: not JSON ({error}); download the model again") from error
    if config.get("model_type") not in _KINDS:
        kinds = ", ".join(_KINDS)
        raise BackboneError(f"{folder}: a model of type {config.get('model_type')!r}; kshot reads {kinds}")
    return config


def _spec(name: str, folder: Path, config: dict[str, Any], layers: tuple[int, ...]) -> Spec:
    vision = config.get("vision_config") or config
    prepare = folder / "preprocessor_config.json"
    facts = json.loads(prepare.read_text()) if prepare.is_file() else {}
    known = SPECS.get(name)
    return Spec(
        known.name if known else name,
        patch=int(vision["patch_size"]),
        dim=int(vision["hidden_size"]),
        mean_rgb=tuple(facts.get("image_mean", known.mean_rgb if known else IMAGENET_MEAN)),
        std_rgb=tuple(facts.get("image_std", known.std_rgb if known else IMAGENET_STD)),
        layers=tuple(layers),
        licence=known.licence if known else "see the model's own page",
        source=known.source if known else name,
    )


def _model(folder: Path, config: dict[str, Any]) -> Any:
    import transformers
    from transformers.utils import logging as transformers_logging

    kind, arguments, _ = _KINDS[config["model_type"]]
    # Its progress bar over tensors says nothing that a user of kshot needs.
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        loader = getattr(transformers, kind).from_pretrained
        return loader(folder, dtype=torch.float32, use_safetensors=True, **arguments)
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(f"{folder}: {error}") from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
