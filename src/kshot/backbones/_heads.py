"""Two small convolutions over a frozen backbone: which cells belong together, and which show an object.

CLIP-DINOiser's heads (Wysoczańska et al., ECCV 2024, section 3.2 and 3.3). Nothing here knows CLIP: any backbone that
gives features to pool (b, c, gh, gw) and inner features (b, width, gh, gw) can carry them.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.backbones.base import Encoding, Spec, fingerprint
from kshot.errors import BackboneError

CHECKPOINT = "last.pt"  # what the official checkpoint is called, beside a model too
CHANNELS, SIDE = 256, 3
GAMMA = 0.2  # section 4.1: affinities below it are noise
INNER = 3  # the block, counted from the end, that the heads read


class Heads(nn.Module):
    """obj_proj: 3 x 3 convolution whose cosines are affinities. bkg_decoder: 1 x 1 convolution to objectness."""

    def __init__(self, width: int, channels: int = CHANNELS):
        super().__init__()
        self.obj_proj = nn.Conv2d(width, channels, SIDE, padding=SIDE // 2, padding_mode="replicate")
        self.bkg_decoder = nn.Conv2d(width, 1, 1)

    def pooled(self, dense: Tensor, inner: Tensor, gamma: float = GAMMA) -> Tensor:
        """dense (b, c, gh, gw), each cell replaced by the mean of the cells that belong with it, by affinity.

        One image at a time: the affinities of a batch of 4096 cells would take gigabytes.
        """
        cells = [_mean_of_alike(d, k, gamma) for d, k in zip(dense.flatten(2), self.keys(inner), strict=True)]
        return torch.stack(cells).reshape(dense.shape)

    def keys(self, inner: Tensor) -> Tensor:
        """(b, channels, gh * gw) of unit length: their cosines are the affinities."""
        return F.normalize(self.obj_proj(inner).flatten(2), dim=1)

    def object_logits(self, inner: Tensor) -> Tensor:
        """(b, gh, gw): above zero where a cell shows an object."""
        logits: Tensor = self.bkg_decoder(F.normalize(inner, dim=1))
        return logits[:, 0]

    def objectness(self, inner: Tensor) -> Tensor:
        """(b, gh, gw) in 0..1: how surely each cell shows an object and not background."""
        return self.object_logits(inner).sigmoid()


class Carrier(Protocol):
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
    """A backbone with heads: its cells pooled over what belongs together, and their objectness.

    loader: what makes it anew from its name, for a process that it is sent to. pools: whether cells are pooled; they
    stay the carrier's own otherwise, and only the objectness is new.
    """

    def __init__(self, carrier: Carrier, heads: Heads, spec: Spec, loader: Callable[..., Any], pools: bool = True):
        self.carrier, self.spec, self.device, self.dtype = carrier, spec, carrier.device, carrier.dtype
        self.loader, self.pools = loader, pools
        facts = ("dinoiser", GAMMA, carrier.identity) if pools else ("objectness", carrier.identity)
        self.identity = fingerprint(dict(heads.state_dict()), *facts)
        # Convolutions of seven megabytes: another number type would save nothing, and blur the cut at gamma.
        self.model = heads.to(carrier.device, torch.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.loader, (self.spec.name, self.device, self.dtype, None)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into cells (b, c, gh, gw), image embeddings (b, c) and objectness (b, gh, gw)."""
        dense, token, inner = self.carrier.encode_inner(pixels)
        cells = self.model.pooled(dense, inner) if self.pools else dense
        return Encoding(F.normalize(cells, dim=1), token, self.model.objectness(inner))


def check_depth(name: str, depth: int) -> None:
    """Raise `BackboneError` for a transformer without a block for the heads to read."""
    if depth < INNER:
        raise BackboneError(f"{name}: a transformer of {depth} blocks; the heads read the third from the end")


def read_heads(path: Path, width: int) -> Heads:
    """Heads for inner features of `width` channels from a checkpoint, read without unpickling code.

    Raises `BackboneError` that names the file and what is wrong: not a checkpoint, missing or foreign keys, shapes.
    """
    return heads_from(_state(path), path, width)


def heads_from(state: dict[str, Tensor], path: Path, width: int) -> Heads:
    """Heads of the tensors of a file, whose keys and shapes must be right."""
    heads = Heads(width)
    expected = {name: tuple(tensor.shape) for name, tensor in heads.state_dict().items()}
    if set(state) != set(expected):
        raise BackboneError(
            f"{path}: no CLIP-DINOiser heads: missing {_listed(set(expected) - set(state))}, "
            f"foreign {_listed(set(state) - set(expected))}; expected the keys {', '.join(expected)}"
        )
    wrong = [
        f"{name} {tuple(state[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if tuple(state[name].shape) != shape
    ]
    if wrong:
        raise BackboneError(f"{path}: heads for another backbone: {'; '.join(wrong)}")
    heads.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return heads.eval().requires_grad_(False)


def git_blob_hash(data: bytes) -> str:
    """The name that git gives a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _state(path: Path) -> dict[str, Tensor]:
    """{key: tensor} of a checkpoint, wrapped in "model_state_dict" or "state_dict" or not at all."""
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
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def _mean_of_alike(dense: Tensor, keys: Tensor, gamma: float) -> Tensor:
    """(c, n) means of dense (c, n) weighted by the cosines of keys (k, n) that are at least gamma."""
    affinity = keys.T @ keys  # (n, n)
    affinity = affinity.masked_fill_(affinity < gamma, 0)
    return dense @ affinity / (affinity.sum(0) + 1e-6)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:6]) or "none"
