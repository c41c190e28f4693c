"""Any frozen backbone with two small heads: which patch tokens belong together, and which show an object.

The heads are those of CLIP-DINOiser (Wysoczańska et al., ECCV 2024, sections 3.2 and 3.3). `kshot train heads` writes
a folder with config.json, which names the backbone under the heads and holds its identity, and heads.safetensors;
`--backbone RUN/backbone` reads it.
"""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.backbones.base import Backbone, Encoding, Spec, TextEncoder, fingerprint, load_backbone
from kshot.errors import BackboneError, OutputError, SettingError
from kshot.io import hub
from kshot.io.atomic import atomic_path, write_text

KIND, WEIGHTS = "kshot-heads", "heads.safetensors"
CHECKPOINT = "last.pt"  # name of the authors' checkpoint, also beside the files of a model
AFFINITY_THRESHOLD = 0.2  # gamma in section 4.1: affinities below it are noise
INNER_BLOCK = 3  # the block whose output the heads read, counted from the end
_CHANNELS, _KERNEL_SIZE = 256, 3
SPECS: dict[str, Spec] = {}


class Heads(nn.Module):
    """obj_proj: 3 x 3 convolution whose cosines are affinities. bkg_decoder: 1 x 1 convolution to objectness.

    Both read inner features (b, width, gh, gw). The names of the layers are those of the authors' checkpoint.
    """

    def __init__(self, width: int, channels: int = _CHANNELS):
        super().__init__()
        padding = _KERNEL_SIZE // 2
        self.obj_proj = nn.Conv2d(width, channels, _KERNEL_SIZE, padding=padding, padding_mode="replicate")
        self.bkg_decoder = nn.Conv2d(width, 1, 1)

    def guided_pooling(self, dense: Tensor, inner: Tensor, gamma: float = AFFINITY_THRESHOLD) -> Tensor:
        """Features (b, c, gh, gw), each patch token replaced by the affinity-weighted mean of all tokens.

        One image at a time: the affinities of a batch of 4096 tokens would take gigabytes.
        """
        keys = self.keys(inner)
        tokens = [_affinity_mean(d, k, gamma) for d, k in zip(dense.flatten(2), keys, strict=True)]
        return torch.stack(tokens).reshape(dense.shape)

    def keys(self, inner: Tensor) -> Tensor:
        """(b, channels, gh * gw) of unit length: their cosines are the affinities."""
        return F.normalize(self.obj_proj(inner).flatten(2), dim=1)

    def object_logits(self, inner: Tensor) -> Tensor:
        """(b, gh, gw): above zero where a patch token shows an object."""
        logits: Tensor = self.bkg_decoder(F.normalize(inner, dim=1))
        return logits[:, 0]

    def objectness(self, inner: Tensor) -> Tensor:
        """(b, gh, gw) in 0..1: probability that a patch token shows an object and not background."""
        return self.object_logits(inner).sigmoid()


class HeadBackbone(Protocol):
    """A backbone that heads can be put on."""

    spec: Spec
    identity: str
    width: int
    device: torch.device
    dtype: torch.dtype

    def encode_inner(self, pixels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Features to pool (b, c, gh, gw), token (b, c), inner features (b, width, gh, gw)."""
        ...


class Headed:
    """A backbone with heads on it.

    loader: the function that loads it again from its name, in a process that it is sent to. guided_pooling: False
    leaves the features as the backbone gives them, and only the objectness is new.
    """

    def __init__(
        self,
        backbone: HeadBackbone,
        heads: Heads,
        spec: Spec,
        loader: Callable[..., Any],
        guided_pooling: bool = True,
    ):
        self.backbone, self.spec, self.device, self.dtype = backbone, spec, backbone.device, backbone.dtype
        self.loader, self.guided_pooling = loader, guided_pooling
        kind = ("dinoiser", AFFINITY_THRESHOLD) if guided_pooling else ("objectness",)
        self.identity = fingerprint(dict(heads.state_dict()), *kind, backbone.identity)
        # Convolutions of seven megabytes: another dtype would save nothing, and blur the threshold on affinities.
        self.model = heads.to(backbone.device, torch.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.loader, (self.spec.name, self.device, self.dtype, None)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into features (b, c, gh, gw), tokens (b, c) and objectness (b, gh, gw)."""
        dense, token, inner = self.backbone.encode_inner(pixels)
        if self.guided_pooling:
            dense = self.model.guided_pooling(dense, inner)
        return Encoding(F.normalize(dense, dim=1), token, self.model.objectness(inner))


class HeadedTextEncoder(Headed):
    """A backbone with heads that reads words too: the texts are embedded by the backbone."""

    backbone: Any  # both a HeadBackbone and a TextEncoder

    def encode_text(self, words: Sequence[str]) -> Tensor:
        """Embed n texts: (n, c)."""
        embeddings: Tensor = self.backbone.encode_text(words)
        return embeddings


class _OnOutputs:
    """A backbone without inner features: heads read its own output."""

    def __init__(self, backbone: Backbone):
        self.backbone, self.spec, self.identity = backbone, backbone.spec, backbone.identity
        self.device, self.dtype = backbone.device, backbone.dtype
        patch = backbone.spec.patch
        self.width = backbone.encode(torch.zeros(1, 3, 4 * patch, 4 * patch)).dense.shape[1]

    def encode_inner(self, pixels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Features (b, width, gh, gw), token (b, width), and the features again."""
        dense, token, _ = self.backbone.encode(pixels)
        return dense.float(), token, dense.float()


def head_backbone(backbone: Backbone) -> HeadBackbone:
    """What heads are put on: the inner features of a transformer, or the output of any other backbone."""
    found: Any = backbone if hasattr(backbone, "encode_inner") else _OnOutputs(backbone)
    return found  # type: ignore[no-any-return]


def with_heads(
    backbone: HeadBackbone, heads: Heads, spec: Spec, loader: Callable[..., Any], guided_pooling: bool = True
) -> Headed:
    """`Headed`, which reads words where the backbone does."""
    kind = HeadedTextEncoder if isinstance(backbone, TextEncoder) else Headed
    return kind(backbone, heads, spec, loader, guided_pooling)


def check_depth(name: str, depth: int) -> None:
    """Raise `BackboneError` for a transformer without a block for the heads to read."""
    if depth < INNER_BLOCK:
        raise BackboneError(f"{name}: a transformer of {depth} blocks; the heads read the third from the end")


def write(folder: Path, name: str, backbone: Backbone, state: dict[str, Tensor], guided_pooling: bool = True) -> None:
    """Write trained heads and the name of the backbone under them. Raises `OutputError`.

    name: short name, Hub id or folder of the backbone. state: of `Heads`. guided_pooling: see `Headed`.
    """
    facts = {
        "model_type": KIND,
        "carrier": str(Path(name).resolve()) if Path(name).is_dir() else name,
        "layers": list(getattr(backbone, "layers", ())),
        "identity": backbone.identity,
        "pools": guided_pooling,
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
        raise SettingError(f"{name}: the layers were chosen when the heads were trained; leave layers (--layers) out")
    folder = hub.find_folder(name, name)
    facts = hub.read_config(folder)
    backbone = head_backbone(_load_named(folder, facts, device, dtype))
    path = folder / WEIGHTS
    try:
        heads = heads_from(load_file(path), path, backbone.width)
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path}: no heads can be read ({error}); train them again") from error
    guided_pooling = bool(facts.get("pools", True))
    what = "pooled over what belongs together, with objectness" if guided_pooling else "with objectness"
    spec = replace(backbone.spec, name=name, note=f"heads over {Path(facts['carrier']).name}: {what}")
    return with_heads(backbone, heads, spec, load, guided_pooling)


def _load_named(folder: Path, facts: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Backbone:
    """The backbone that a config names, with the weights that it had when the heads were trained."""
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


def read_checkpoint(path: Path, width: int) -> Heads:
    """Heads for inner features of `width` channels from a torch checkpoint, read without unpickling code.

    The tensors may be wrapped in "model_state_dict", "state_dict" or "model". Raises `BackboneError` that names the
    file and what is wrong: not a checkpoint, missing or foreign keys, shapes.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError) as error:
        # torch's own message would invite to load it all the same.
        raise BackboneError(f"{path}: not a checkpoint of tensors alone; download it again") from error
    for wrapper in ("model_state_dict", "state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise BackboneError(f"{path}: not a dict of tensors; expected CLIP-DINOiser's obj_proj.* and bkg_decoder.*")
    return heads_from({name.removeprefix("module."): tensor for name, tensor in loaded.items()}, path, width)


def heads_from(state: dict[str, Tensor], path: Path, width: int) -> Heads:
    """Heads with the weights of a file. Raises `BackboneError` for wrong keys or shapes."""
    heads = Heads(width)
    expected = {name: tuple(tensor.shape) for name, tensor in heads.state_dict().items()}
    if set(state) != set(expected):
        raise BackboneError(
            f"{path}: no CLIP-DINOiser heads: missing {_listed(set(expected) - set(state))}, "
            f"foreign {_listed(set(state) - set(expected))}; expected the keys {', '.join(expected)}"
        )
    found = {name: tuple(state[name].shape) for name in expected}
    wrong = [f"{name} {found[name]}, not {shape}" for name, shape in expected.items() if found[name] != shape]
    if wrong:
        raise BackboneError(f"{path}: heads for another backbone: {'; '.join(wrong)}")
    heads.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return heads.eval().requires_grad_(False)


def git_blob_hash(data: bytes) -> str:
    """The name that git gives a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _affinity_mean(dense: Tensor, keys: Tensor, gamma: float) -> Tensor:
    """(c, n) means of dense (c, n) weighted by the cosines of keys (k, n) that are at least gamma."""
    affinity = keys.T @ keys  # (n, n)
    affinity = affinity.masked_fill_(affinity < gamma, 0)
    return dense @ affinity / (affinity.sum(0) + 1e-6)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:6]) or "none"
