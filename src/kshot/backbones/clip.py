"""CLIP with words: dense features that live in one space with texts, and the text encoder.

CLIP (Radford et al., ICML 2021); the dense features are MaskCLIP's (Zhou et al., ECCV 2022, section 3.2): in the last
block only the value path is kept, so that a patch token says what its patch shows and not what the image as a whole
does. This module loads a folder or Hub id with a whole CLIP model (both towers and projections). `hub` loads a folder
with the vision tower alone, and the tower of a whole model where `layers` are asked for.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones import hub
from kshot.backbones.base import Encoding, Spec, fingerprint
from kshot.backbones.headed import CHECKPOINT, INNER_BLOCK
from kshot.errors import BackboneError, SettingError
from kshot.io.hub import TOKENIZER, find_folder, image_mean_std, load_model, read_config

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_FEATURES_VERSION = 1  # raised when the same weights give other features

_NOTE = "MaskCLIP features and a text encoder"
SPECS = {
    name: Spec(name, 16, 512, _MEAN, _STD, licence="MIT", source=source, note=_NOTE, text=True)
    for name, source in (
        ("clip-vit-b16", "openai/clip-vit-base-patch16"),
        ("clip-vit-b16-laion2b", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    )
}

_PHOTOS = ["bad", "good", "cropped", "bright", "dark", "blurry", "close-up", "low resolution", "pixelated"]
_PHOTOS += ["jpeg corrupted", "black and white"]
_THINGS = ["hard to see", "clean", "dirty", "cool", "nice", "weird", "large", "small"]
_WORKS = ["a photo", "itap", "art", "a painting", "a drawing", "a sketch", "a doodle", "graffiti", "a tattoo"]
_WORKS += ["a sculpture", "a rendering", "a rendition"]  # "itap": "I took a picture", as photographers' forums have it
_STUFFS = ["embroidered", "plastic", "origami", "toy", "cartoon", "plushie"]
# Sentences around a class's name whose embeddings are averaged: the 80 that CLIP's authors chose on ImageNet (Radford
# et al., section 3.1.4, and their notebook "Prompt engineering for ImageNet").
TEMPLATES = (
    *(f"a {kind} photo of {article} {{}}." for kind in _PHOTOS for article in ("a", "the")),
    *(f"a photo of {article} {kind} {{}}." for kind in _THINGS for article in ("a", "the")),
    *(f"{work} of {article} {{}}." for work in _WORKS for article in ("a", "the")),
    *(f"{article} {stuff} {{}}." for stuff in _STUFFS for article in ("a", "the")),
    *(f"{article} {{}} in a video game." for article in ("a", "the")),
    *("a photo of many {}.", "a photo of one {}.", "a photo of my {}.", "itap of my {}."),
)


class Clip:
    """Both towers of a CLIP model. Patch tokens, image token and texts are of unit length in its joint space."""

    def __init__(self, spec: Spec, model: Any, folder: Path, device: torch.device, dtype: torch.dtype):
        self.spec, self.folder, self.device, self.dtype = spec, folder, device, dtype
        self.depth = int(model.config.vision_config.num_hidden_layers)
        self.width = int(model.config.vision_config.hidden_size)
        facts = "clip", _FEATURES_VERSION, spec.patch, spec.mean_rgb, spec.std_rgb
        self.identity = fingerprint(dict(model.state_dict()), *facts)
        self.model = model.to(device, dtype).eval().requires_grad_(False)

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.spec.name, self.device, self.dtype, None)

    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into features (b, c, H / patch, W / patch) and tokens (b, c)."""
        dense, token, _ = self.encode_inner(pixels)
        return Encoding(F.normalize(dense, dim=1), token)

    @torch.inference_mode()
    def encode_inner(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (b, c, gh, gw) before they are brought to unit length, token (b, c), and what heads are put on.

        The last is (b, width, gh, gw), the output of the second norm of the block `INNER` from the end.
        """
        grid_hw = pixels.shape[2] // self.spec.patch, pixels.shape[3] // self.spec.patch
        vision = self.model.vision_model
        hidden = vision.embeddings(pixels.to(self.device, self.dtype), interpolate_pos_encoding=True)
        hidden = inner = vision.pre_layrnorm(hidden)  # (b, 1 + gh * gw, width)
        for number, block in enumerate(vision.encoder.layers[:-1]):
            if number == self.depth - INNER_BLOCK:
                hidden, inner = _block_and_second_norm(block, hidden)
            else:
                hidden = block(hidden, attention_mask=None)
        last = vision.encoder.layers[-1]
        dense = self._project(_values_only(last, hidden[:, 1:]))  # (b, gh * gw, c)
        token = F.normalize(self._project(last(hidden, attention_mask=None)[:, 0]), dim=-1)
        return hub.on_grid(dense, grid_hw), token, hub.on_grid(inner[:, 1:].float(), grid_hw)

    @torch.inference_mode()
    def encode_text(self, words: Sequence[str]) -> Tensor:
        """Embed n texts: (n, c), each the mean over `TEMPLATES` at unit length.

        Raises `SettingError` for a text that is too long, `BackboneError` where the model came without a tokenizer.
        """
        return torch.stack([self._embed(text) for text in words])

    def _project(self, hidden: Tensor) -> Tensor:
        projected: Tensor = self.model.visual_projection(self.model.vision_model.post_layernorm(hidden)).float()
        return projected

    def _embed(self, text: str) -> Tensor:
        tokens = self._tokenizer([template.format(text) for template in TEMPLATES], padding=True, return_tensors="pt")
        longest, most = tokens["input_ids"].shape[1], self.model.config.text_config.max_position_embeddings
        if longest > most:
            raise SettingError(f"the text {text[:40]!r}... has {longest} tokens, the backbone reads {most}; shorten it")
        out = self.model.get_text_features(**{name: part.to(self.device) for name, part in tokens.items()})
        return F.normalize(F.normalize(out.pooler_output.float(), dim=-1).mean(0), dim=0)

    @cached_property
    def _tokenizer(self) -> Any:
        has = {name for name in TOKENIZER if (self.folder / name).is_file()}
        if not ("tokenizer.json" in has or {"vocab.json", "merges.txt"} <= has):  # transformers would make an empty one
            raise BackboneError(
                f"{self.folder}: no tokenizer (tokenizer.json, or vocab.json with merges.txt), so it reads no words; "
                f"put it there, or run `kshot models pull {self.spec.name}`"
            )
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(self.folder)


def reads(folder: Path) -> bool:
    """Whether a folder holds a whole CLIP model, and no heads for it."""
    return is_whole(folder) and not (folder / CHECKPOINT).is_file()


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a CLIP model with both towers."""
    return (folder / "config.json").is_file() and read_config(folder).get("model_type") == "clip"


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Any:
    """Load a short name, Hub id or local folder; with `layers`, its vision tower as `hub` does."""
    known = SPECS.get(name)
    source = known.source if known else name
    if layers:
        return hub.load(source, device, dtype, layers)
    return load_clip(source, name, known, device, dtype)


def load_clip(source: str, name: str, known: Spec | None, device: torch.device, dtype: torch.dtype) -> Clip:
    """The CLIP model of a folder or Hub id, under the name and the facts of `known` where there are some."""
    folder = find_folder(source, name)
    config = read_config(folder)
    if config.get("model_type") != "clip":
        raise BackboneError(f"{folder}: a model of type {config.get('model_type')!r}, expected a whole CLIP model")
    model = load_model(folder, "CLIPModel")
    facts = known or Spec(name, 0, 0, _MEAN, _STD, licence="see the model's own page", source=name, text=True)
    mean, std = image_mean_std(folder)
    spec = replace(
        facts,
        patch=int(model.config.vision_config.patch_size),
        dim=int(model.config.projection_dim),
        mean_rgb=mean or facts.mean_rgb,
        std_rgb=std or facts.std_rgb,
    )
    return Clip(spec, model, folder, device, dtype)


def _block_and_second_norm(block: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a block and of its second norm."""
    attended, _ = block.self_attn(block.layer_norm1(hidden), attention_mask=None)
    hidden = hidden + attended
    normed = block.layer_norm2(hidden)
    return hidden + block.mlp(normed), normed


def _values_only(block: Any, hidden: Tensor) -> Tensor:
    """The output of a block in which every token attends to itself alone."""
    attention = block.self_attn
    hidden = hidden + attention.out_proj(attention.v_proj(block.layer_norm1(hidden)))
    out: Tensor = hidden + block.mlp(block.layer_norm2(hidden))
    return out
