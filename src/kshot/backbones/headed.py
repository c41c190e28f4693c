"""Heads of one's own over any frozen backbone: what `kshot train heads` writes and `--backbone RUN/backbone` reads.

A folder with config.json, which names the backbone that carries the heads and holds its identity, and with
heads.safetensors.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kshot.backbones._heads import Carrier, Headed, heads_from
from kshot.backbones.base import Backbone, Spec, TextEncoder, load_backbone
from kshot.backbones.dinoiser import Dinoiser
from kshot.errors import BackboneError, OutputError, SettingError
from kshot.io import hub
from kshot.io.atomic import atomic_path, write_text

KIND, WEIGHTS = "kshot-heads", "heads.safetensors"
SPECS: dict[str, Spec] = {}


class _Plain:
    """A backbone without inner features carries heads on its own cells."""

    def __init__(self, backbone: Backbone):
        self.backbone, self.spec, self.identity = backbone, backbone.spec, backbone.identity
        self.device, self.dtype = backbone.device, backbone.dtype
        patch = backbone.spec.patch
        self.width = backbone.encode(torch.zeros(1, 3, 4 * patch, 4 * patch)).dense.shape[1]

    def encode_inner(self, pixels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Cells (b, width, gh, gw), token, and the cells again."""
        dense, token, _ = self.backbone.encode(pixels)
        return dense.float(), token, dense.float()


def carrier_of(backbone: Backbone) -> Carrier:
    """What heads are put on: the inner features of a transformer, or the cells themselves."""
    carrier: Any = backbone if hasattr(backbone, "encode_inner") else _Plain(backbone)
    return carrier  # type: ignore[no-any-return]


def write(folder: Path, name: str, backbone: Backbone, state: dict[str, Tensor], pools: bool = True) -> None:
    """Keep trained heads beside the name of the backbone that carries them. Raises `OutputError`.

    name: short name, Hub id or folder of the backbone. state: of `Heads`. pools: whether cells are to be pooled.
    """
    facts = {
        "model_type": KIND,
        "carrier": str(Path(name).resolve()) if Path(name).is_dir() else name,
        "layers": list(getattr(backbone, "layers", ())),
        "identity": backbone.identity,
        "pools": pools,
    }
    with atomic_path(folder / WEIGHTS) as beside:
        try:
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}, beside)
        except SafetensorError as error:
            raise OutputError(f"{folder / WEIGHTS}: cannot be written ({error})") from error
    write_text(folder / "config.json", json.dumps(facts, indent=2) + "\n")


def reads(folder: Path) -> bool:
    """Whether a folder holds heads that kshot trained."""
    return (folder / "config.json").is_file() and hub.read_config(folder).get("model_type") == KIND


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Headed:
    """Heads of a folder on the backbone that they were trained on; see `load_backbone` for the errors."""
    if layers:
        raise SettingError(f"{name}: the layers were chosen when the heads were trained; leave --layers out")
    folder = hub.find_folder(name, name)
    facts = hub.read_config(folder)
    backbone = _backbone(folder, facts, device, dtype)
    carrier = carrier_of(backbone)
    heads = heads_from(_tensors(folder / WEIGHTS), folder / WEIGHTS, carrier.width)
    pools = bool(facts.get("pools", True))
    what = "pooled over what belongs together, with objectness" if pools else "with objectness"
    note = f"heads over {Path(facts['carrier']).name}: {what}"
    spec = replace(carrier.spec, name=name, note=note)
    kind: Any = Dinoiser if isinstance(backbone, TextEncoder) else Headed
    made: Headed = kind(carrier, heads, spec, load, pools)
    return made


def _backbone(folder: Path, facts: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Backbone:
    """The backbone that a config names, with the weights that it had then."""
    path = folder / "config.json"
    if not {"carrier", "layers", "identity"} <= set(facts):
        raise BackboneError(f"{path}: names no backbone for the heads; train them again with `kshot train heads`")
    named, layers = facts["carrier"], facts["layers"] or None
    if Path(named).is_absolute() and not Path(named).is_dir():
        raise BackboneError(
            f"{folder}: the heads belong on the model of {named}, which is not there; put it back, or its new place "
            f'behind "carrier" in {path}'
        )
    kind = str(dtype).removeprefix("torch.")
    backbone = load_backbone(named, device=str(device), dtype=kind, layers=layers)
    if backbone.identity != facts["identity"]:
        raise BackboneError(
            f"{folder}: {named} has other weights ({backbone.identity[:12]}) than those that the heads were trained on "
            f'({facts["identity"][:12]}); put the place of the right ones behind "carrier" in {path}, or train anew'
        )
    return backbone


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path}: no heads can be read ({error}); train them again") from error
