"""What every backbone is: a `Spec` that travels with the weights, and `encode`."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from kshot import _plugins
from kshot.errors import BackboneError, SettingError, UnknownNameError
from kshot.io import hub

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT = "tiny"


@dataclass(frozen=True)
class Spec:
    """Facts about a backbone.

    patch: side of a cell, pixels. dim: channels of one layer. mean_rgb, std_rgb: of pixel values in 0..1.
    layers: concatenated: "12" is the output of block 12, counted from 1, "k12" the keys of its attention, "v12" its
    values (empty: the output of the last block).
    licence: of the weights. source: Hub id or paper. sha256: of the weights file, when they come with kshot.
    text: whether it embeds words in the space of its cells. size: side of the working area that suits it, pixels.
    """

    name: str
    patch: int
    dim: int
    mean_rgb: tuple[float, float, float] = IMAGENET_MEAN
    std_rgb: tuple[float, float, float] = IMAGENET_STD
    layers: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    sha256: str = ""
    note: str = ""
    text: bool = False
    size: int = 448


class Encoding(NamedTuple):
    """Output for a batch: dense (b, c, gh, gw); token (b, c) or None; objectness (b, gh, gw) in 0..1 or None.

    The token stands for the whole image in the space of the cells, channel by channel.
    """

    dense: Tensor
    token: Tensor | None = None
    objectness: Tensor | None = None


class Backbone(Protocol):
    """An encoder that never changes: no gradient, no state between calls, safe to share between threads."""

    spec: Spec
    identity: str
    device: torch.device
    dtype: torch.dtype

    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) normalised pixels; H and W are multiples of `spec.patch`."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """A backbone that reads words too."""

    def encode_text(self, words: Sequence[str]) -> Tensor:
        """Embed n texts: (n, c) of unit length, in the space of the cells."""
        ...


def readers_of_text() -> list[str]:
    """Short names of the backbones that read words."""
    return sorted(name for name, (_, spec) in specs().items() if spec.text)


def specs() -> dict[str, tuple[ModuleType, Spec]]:
    """Every short name with its module and Spec."""
    return {
        name: (module, spec) for module in _plugins.members("backbones").values() for name, spec in module.SPECS.items()
    }


def load_backbone(
    name: str, *, device: str = "auto", dtype: str = "float32", layers: Iterable[int | str] | None = None
) -> Backbone:
    """Load a backbone by short name, Hub id ("owner/name") or local folder.

    A file of this folder that knows a kind of model by its files says so with `reads(folder)`; `hub` takes the rest.

    device: auto, cpu, cuda, cuda:1, ... dtype: float32 or bfloat16. layers: instead of the Spec's.
    Raises `UnknownNameError`, `WeightsNotFoundError`, `BackboneError` and `SettingError`.
    """
    known = specs()
    if name not in known and "/" not in name and not Path(name).is_dir():
        raise UnknownNameError("backbones", name, [*known, "a Hub id (owner/name)", "a local folder"])
    module = known[name][0] if name in known else _reader(hub.find_folder(name, name))
    chosen = tuple(str(layer) for layer in layers) if layers is not None else None
    backbone: Backbone = module.load(name, pick_device(device), pick_dtype(dtype), chosen)
    return backbone


def _reader(folder: Path) -> ModuleType:
    """The module that reads the model in a folder."""
    for module in _plugins.members("backbones").values():
        if getattr(module, "reads", None) and module.reads(folder):
            return module
    return _plugins.load("backbones", "hub")


def pick_device(device: str) -> torch.device:
    """`auto` is the first CUDA device when there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise SettingError(f"no device is called {device!r}; use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BackboneError(f"device {device}: this torch sees no CUDA GPU; use --device cpu (kshot doctor says more)")
    return chosen


def pick_dtype(dtype: str) -> torch.dtype:
    """float32 or bfloat16 by name."""
    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in choices:
        raise SettingError(f"no dtype {dtype!r} here; use {' or '.join(choices)}")
    return choices[dtype]


def fingerprint(tensors: Mapping[str, Tensor], *facts: object) -> str:
    """sha256 over names, shapes and float32 bytes of weights, and over facts that change the features."""
    digest = hashlib.sha256(repr(facts).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
