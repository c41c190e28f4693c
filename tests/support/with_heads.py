"""Tiny models of several kinds, and folders of heads for them."""

from pathlib import Path

import torch
import transformers

from kshot.backbones import headed
from kshot.backbones.base import load_backbone
from kshot.backbones.headed import Heads
from tests.support import tiny_clip

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


def make(folder: Path, kind: str = "vit", depth: int = 4) -> str:
    """A tiny random model, or the name of one that needs no folder."""
    torch.manual_seed(3)
    settings = SMALL | {"num_hidden_layers": depth}
    if kind == "vit":
        transformers.ViTModel(transformers.ViTConfig(**settings), add_pooling_layer=False).save_pretrained(folder)
    elif kind == "dinov2":
        transformers.Dinov2Model(transformers.Dinov2Config(**settings)).save_pretrained(folder)
    elif kind == "clip":
        tiny_clip.make_clip(folder)
    else:
        return kind
    return str(folder)


def put_heads(folder: Path, name: str, layers: tuple[str, ...] | None = None) -> str:
    """A folder with random heads for a backbone."""
    backbone = load_backbone(name, device="cpu", layers=layers)
    torch.manual_seed(4)
    heads = Heads(headed.head_backbone(backbone).width)
    headed.write(folder, name, backbone, heads.state_dict())
    return str(folder)


def make_headed(folder: Path) -> Path:
    """Heads over a tiny ViT that lies in the same folder."""
    return Path(put_heads(folder / "heads", make(folder / "model")))
