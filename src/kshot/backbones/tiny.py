"""The encoder inside kshot, and others of its kind: small, quick on a CPU, no network and no download.

`kshot train distill` makes them; docs/models/tiny.md tells what this one learned from and how well it does.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones._net import STRIDE, Net, Plan
from kshot.backbones.base import Encoding, Spec, fingerprint
from kshot.errors import BackboneError, SettingError
from kshot.io import hub
from kshot.io.atomic import atomic_path, write_text

KIND, WEIGHTS, CONFIG = "kshot-net", "model.safetensors", "config.json"
_PACKED = "tiny.safetensors"
PLAN = Plan(dim=192, residuals=(1, 1, 1), blocks=4)
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
    """A trained `Net`: 8-pixel cells, a vector for the whole image, and objectness."""

    def __init__(self, spec: Spec, model: Net, device: torch.device, dtype: torch.dtype):
        self.spec, self.device, self.dtype = spec, device, dtype
        self.identity = fingerprint(dict(model.state_dict()), asdict(model.plan), spec.mean_rgb, spec.std_rgb)
        self.model = model.to(device, dtype).channels_last().eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into cells (b, dim, H / 8, W / 8), tokens (b, dim) and objectness (b, H / 8, W / 8)."""
        pixels = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
        out = self.model(pixels)
        dense = F.normalize(out.dense.float(), dim=1).contiguous()
        return Encoding(dense, F.normalize(out.token.float(), dim=1), out.objectness.float().sigmoid())


def reads(folder: Path) -> bool:
    """Whether a folder holds an encoder that `kshot train distill` made."""
    path = folder / CONFIG
    return path.is_file() and hub.read_config(folder).get("model_type") == KIND


def load_packed(data: bytes, where: str, plan: Plan) -> Net:
    """A `Net` from the bytes of a safetensors file; raises `BackboneError` when they are no such thing."""
    model = Net(plan)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in from_bytes(data).items()})
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise BackboneError(f"{where}: no encoder of this plan ({error}); train or copy it again") from error
    return model


def plan_of(values: Mapping[str, Any]) -> Plan:
    """A plan as JSON holds it."""
    plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
    return Plan(**plain)


def save(model: Net, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write an encoder as a folder that `--backbone` takes: float16 weights and config.json. Raises `OutputError`."""
    with atomic_path(folder / WEIGHTS) as beside:
        save_file({name: tensor.half().cpu().contiguous() for name, tensor in model.state_dict().items()}, beside)
    config = {"model_type": KIND, "plan": asdict(model.plan), **facts}
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return folder


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Tiny:
    """The packed encoder, or a folder with one; see `load_backbone` for the errors."""
    if layers:
        raise SettingError(f"{name} has no layers to choose from; leave --layers out")
    if name in SPECS:
        spec = SPECS[name]
        data = resources.files("kshot.backbones").joinpath(_PACKED).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != spec.sha256:
            raise BackboneError(f"{_PACKED} inside kshot has sha256 {found}, not {spec.sha256}; install kshot again")
        return Tiny(spec, load_packed(data, _PACKED, PLAN), device, dtype)
    folder = hub.find_folder(name, name)
    config = hub.read_config(folder)
    plan = plan_of(config["plan"])
    spec = Spec(name, STRIDE, plan.dim, licence=config.get("licence", ""), source=name)
    return Tiny(spec, load_packed((folder / WEIGHTS).read_bytes(), str(folder / WEIGHTS), plan), device, dtype)
