"""What every backbone is: a `Spec` that travels with the weights, and `encode`."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from kshot import _elsewhere, _plugins
from kshot.errors import BackboneError, KshotError, PluginError, SettingError, UnknownNameError
from kshot.io import hub

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT = "tiny"


@dataclass(frozen=True)
class Spec:
    """Facts about a backbone."""

    name: str
    """Short name, Hub id or folder: what `load_backbone` takes."""
    patch: int
    """Side of a patch, pixels."""
    dim: int
    """Channels of one layer."""
    mean_rgb: tuple[float, float, float] = IMAGENET_MEAN
    """Mean that is taken from pixel values in 0..1."""
    std_rgb: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation that they are divided by."""
    layers: tuple[str, ...] = ()
    """Layers that are concatenated: "12" is the output of block 12, counted from 1, "k12" the keys of its attention
    and "v12" its values. Empty: the output of the last block."""
    licence: str = ""
    """Licence of the weights."""
    source: str = ""
    """Hub id or paper."""
    sha256: str = ""
    """Hash of the weights file, when it comes with kshot."""
    note: str = ""
    """What a user should know, in a line."""
    text: bool = False
    """Whether it embeds words in the space of its patch tokens."""
    size: int = 448
    """Default working size: images are resized to about size x size pixels of area."""


class Encoding(NamedTuple):
    """Output of a backbone for a batch of b images."""

    dense: Tensor
    """Patch tokens, (b, c, gh, gw)."""
    token: Tensor | None = None
    """One vector for the whole image, (b, c), in the space of the patch tokens, channel by channel."""
    objectness: Tensor | None = None
    """(b, gh, gw) in 0..1: probability that a patch shows an object and not background."""


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
class LearnableBackbone(Protocol):
    """A backbone whose weights can be trained (`kshot train finetune`)."""

    spec: Spec
    identity: str
    device: torch.device
    dtype: torch.dtype
    model: nn.Module
    """The network."""
    blocks: str
    """Path of the list of its blocks in `model`, the first one first."""

    def encode(self, pixels: Tensor) -> Encoding:
        """As of any backbone."""
        ...

    def learnable(self, pixels: Tensor) -> Encoding:
        """As `encode`, with gradients, and with logits of objectness instead of probabilities."""
        ...

    def copied(self) -> Self:
        """The same backbone in float32 with weights of its own; its identity is that of the weights as they are."""
        ...

    def save(self, folder: Path, facts: Mapping[str, Any]) -> Path:
        """Write a folder that `load_backbone` reads, with more facts in its config; raises `OutputError`."""
        ...


class BackboneModule(Protocol):
    """A file of this package: `SPECS` by short name, and `load`.

    It may define `reads(folder)`, whether it loads the model in a folder; `is_here(name)`, whether a short name's
    weights are on this machine; and `pull(name)`, which downloads them.
    """

    SPECS: Mapping[str, Spec]

    def load(self, name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Backbone:
        """The backbone of a short name, Hub id or folder, with these layers or its own."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """A backbone that embeds words too."""

    def encode_text(self, words: Sequence[str]) -> Tensor:
        """Embed n texts: (n, c) of unit length, in the space of the patch tokens."""
        ...


def text_backbones() -> list[str]:
    """Short names of the backbones that embed words."""
    return sorted(name for name, (_, spec) in specs().items() if spec.text)


def specs() -> dict[str, tuple[BackboneModule, Spec]]:
    """Every short name with its module and Spec."""
    return _plugins.with_installed("backbones", _own_specs(), installed_backbone)


def _own_specs() -> dict[str, tuple[BackboneModule, Spec]]:
    return {name: (module, spec) for module in _own_modules() for name, spec in module.SPECS.items()}


def _own_modules() -> list[BackboneModule]:
    return [_plugins.load("backbones", name) for name in _plugins.names("backbones")]


def installed_backbone(name: str) -> tuple[BackboneModule, Spec]:
    """Module and Spec of an installed distribution's backbone. Raises `PluginError` when it cannot be used."""
    added = _elsewhere.installed("backbones")[name.replace("_", "-")]
    if name in _own_specs():
        raise added.clash()
    module: Any = added.load()
    spec = getattr(module, "SPECS", {}).get(name)
    if not isinstance(spec, Spec) or spec.name != name or not callable(getattr(module, "load", None)):
        raise added.wrong(f"{added.module} needs SPECS with a Spec of this name, and load()")
    return module, spec


def _unknown(name: str, choices: Iterable[str]) -> KshotError:
    """Why there is no backbone of this name: one of an installed distribution may be broken."""
    if name.replace("_", "-") in _elsewhere.installed("backbones"):
        try:
            installed_backbone(name)
        except PluginError as error:
            return error
    return UnknownNameError("backbones", name, choices)


def spec_of(name: str) -> Spec:
    """Facts about a backbone without loading it; of a Hub id or a folder only its name is known.

    Raises `UnknownNameError`.
    """
    known = specs()
    if name in known:
        return known[name][1]
    if "/" in name or Path(name).is_dir():
        return Spec(name, 0, 0, source=name)
    raise _unknown(name, known)


def is_here(spec: Spec) -> bool:
    """Whether a backbone can be loaded without a network; one of several parts answers for itself."""
    own = _function_of(spec.name, "is_here")
    if own:
        return bool(own(spec.name))
    return "/" not in spec.source or Path(spec.source).is_dir() or hub.cached_folder(spec.source) is not None


def pull(name: str) -> Path | None:
    """Download a backbone's weights and return their folder; None where they come with kshot.

    Raises `UnknownNameError` and `WeightsNotFoundError`.
    """
    source, own = spec_of(name).source, _function_of(name, "pull")
    if "/" not in source:
        return None
    if own:
        return Path(own(name))
    folder = hub.find_folder(source, name)
    # What another program put into the Hub's cache may lack the tokenizer.
    return hub.pull(source, name) if not Path(source).is_dir() and hub.hub_answers() else folder


def _function_of(name: str, function: str) -> Callable[[str], Any] | None:
    """A function of the module of a backbone with a short name, where the module has one."""
    known = specs().get(name)
    return getattr(known[0], function, None) if known else None


def load_backbone(
    name: str, *, device: str = "auto", dtype: str = "float32", layers: Iterable[int | str] | None = None
) -> Backbone:
    """Load a backbone by short name, Hub id ("owner/name") or local folder.

    A module of this package that defines `reads(folder)` takes the folders for which that is true; `hub` takes the
    rest.

    device: auto, cpu, cuda, cuda:1, ... dtype: float32 or bfloat16. layers: instead of the Spec's.
    Raises `UnknownNameError`, `WeightsNotFoundError`, `BackboneError` and `SettingError`.
    """
    known = specs()
    if name not in known and "/" not in name and not Path(name).is_dir():
        raise _unknown(name, [*known, "a Hub id (owner/name)", "a local folder"])
    module = known[name][0] if name in known else _module_for(hub.find_folder(name, name))
    chosen = tuple(str(layer) for layer in layers) if layers is not None else None
    place, kind = pick_device(device), pick_dtype(dtype)
    try:
        return module.load(name, place, kind, chosen)
    except (KshotError, torch.cuda.OutOfMemoryError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, RuntimeError) as error:
        # A model's files come from anywhere, and each library that reads them fails in its own way.
        raise BackboneError(
            f"{name}: cannot be loaded ({type(error).__name__}: {error}); where its files are damaged, copy or "
            "download them again"
        ) from error


def _module_for(folder: Path) -> BackboneModule:
    """The module that loads the model in a folder."""
    for module in _own_modules():
        if hasattr(module, "reads") and module.reads(folder):
            return module
    rest: BackboneModule = _plugins.load("backbones", "hub")
    return rest


def pick_device(device: str) -> torch.device:
    """`auto` is the first CUDA device when there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise SettingError(f"no device is called {device!r}; use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BackboneError(
            f"device {device}: this torch sees no CUDA GPU; use device cpu (--device cpu; `kshot doctor` says more)"
        )
    return chosen


def pick_dtype(dtype: str) -> torch.dtype:
    """float32 or bfloat16 by name."""
    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in choices:
        raise SettingError(f"no dtype {dtype!r} here; use {' or '.join(choices)}")
    return choices[dtype]


def refuse_layers(name: str, layers: tuple[str, ...] | None) -> None:
    """Raise `SettingError` when layers are chosen of a backbone that has none."""
    if layers:
        raise SettingError(f"{name} has no layers to choose from; leave layers (--layers) out")


def fingerprint(tensors: Mapping[str, Tensor], *facts: object) -> str:
    """sha256 over names, shapes and float32 bytes of weights, and over facts that change the features."""
    digest = hashlib.sha256(repr(facts).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
