"""Inference engines: what computes a backbone's features, plain torch or something faster that agrees with it.

The reference is torch in float32. `openvino` compiles the encoder for the processor and computes in bfloat16 where the
processor has units for it; `autocast` is torch in bfloat16, for processors with matrix units (AMX). Both are checked
against the reference on photographs that come with scikit-image before they are used, once for each backbone and
machine: only an engine within `MIN_COSINE` and `MIN_NEIGHBOURS` is taken. So tasks, whichever engine they were fitted
with, work with all of them. Images pass one by one, so that the features of an image never depend on its batch.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.backbones.base import Backbone, Encoding, TextEncoder
from kshot.errors import BackboneError, ImageReadError, SettingError
from kshot.features import _openvino
from kshot.features._compiled_files import Compiled, read_compiled, write_compiled
from kshot.features.extract import prepare
from kshot.io.images import read_image
from kshot.ops.geometry import Frame
from kshot.ops.processor import has_matrix_units

log = logging.getLogger(__name__)
MIN_COSINE = 0.999
"""Mean cosine of an engine's patch tokens with those of torch in float32, at least."""
MIN_NEIGHBOURS = 0.94
"""Share of patch tokens whose nearest other token in the image stays the same, at least."""
_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
_VERSION = 1  # raised when what is compiled or checked changes
_Encode = Callable[[Tensor], Encoding]


class Agreement(NamedTuple):
    """How well features agree with those of torch in float32, over some photographs."""

    cosine: float
    """Mean cosine of patch tokens."""
    neighbours: float
    """Share of patch tokens whose nearest other token in the image stays the same."""

    @property
    def enough(self) -> bool:
        """Whether tasks work across both."""
        return self.cosine >= MIN_COSINE and self.neighbours >= MIN_NEIGHBOURS

    def __str__(self) -> str:
        return (
            f"mean cosine {self.cosine:.5f} (at least {MIN_COSINE}), {self.neighbours:.1%} of the patch tokens keep "
            f"their nearest neighbour (at least {MIN_NEIGHBOURS:.0%})"
        )


class Accelerated:
    """A backbone whose images an engine encodes, one by one.

    engine: its name, to set it up anew in a process that this is sent to. precision: see `precision_of`.
    """

    def __init__(self, backbone: Backbone, encode: _Encode, engine: str, precision: str):
        self.backbone, self.spec, self.identity = backbone, backbone.spec, backbone.identity
        self.device, self.dtype = backbone.device, backbone.dtype
        self.layers: tuple[str, ...] = tuple(getattr(backbone, "layers", ()))
        self.engine, self.precision, self._encode = engine, precision, encode

    def __reduce__(self) -> tuple[Any, ...]:
        return accelerate, (self.backbone, self.engine)

    def encode(self, pixels: Tensor) -> Encoding:
        """As of the backbone, within the tolerance of this module."""
        each = [self._encode(image) for image in pixels.to("cpu", torch.float32).split(1)]
        dense, token, objectness = (
            None if parts[0] is None else torch.cat([part for part in parts if part is not None])
            for parts in zip(*each, strict=True)
        )
        if dense is None:
            raise BackboneError(f"{self.spec.name}: gives no patch tokens")
        return Encoding(dense, token, objectness)


class AcceleratedTextEncoder(Accelerated):
    """A backbone that reads words too; torch embeds them."""

    backbone: Any  # both a Backbone and a TextEncoder

    def encode_text(self, words: Sequence[str]) -> Tensor:
        """Embed n texts: (n, c)."""
        embeddings: Tensor = self.backbone.encode_text(words)
        return embeddings


def precision_of(backbone: Backbone) -> str:
    """What computes the features, and at which precision: "torch.float32", "openvino.bfloat16", ..."""
    return str(getattr(backbone, "precision", backbone.dtype))


def accelerate(backbone: Backbone, engine: str = "auto") -> Backbone:
    """The backbone with an engine: "torch" leaves it, "auto" takes the fastest that is here and agrees with float32.

    Only networks in float32 on a CPU have a choice; others keep torch with "auto". The environment variable
    KSHOT_INFERENCE_ENGINE, where it is set, says what "auto" is.
    Raises `SettingError` for an unknown engine, and for one that this machine has not or that does not suit the
    backbone's device or dtype; `BackboneError` when it cannot run the network, or does not agree with float32.
    """
    if engine == "auto":
        engine = os.environ.get("KSHOT_INFERENCE_ENGINE") or engine
    if engine not in ENGINES:
        raise SettingError(f"no inference engine is called {engine!r}; use {', '.join(ENGINES)}")
    unfit = _unfit(backbone)
    if engine == "torch" or (unfit and engine == "auto"):
        return backbone
    if unfit:
        raise SettingError(f"{backbone.spec.name}: {unfit}; leave the engine {engine} (--inference-engine) out")
    if engine != "auto":
        return _SETUPS[engine](backbone)
    for setup in _SETUPS.values():
        try:
            return setup(backbone)
        except (SettingError, BackboneError) as error:
            log.info("%s", error)
    return backbone


def _unfit(backbone: Backbone) -> str:
    """Why no engine but torch can run a backbone, if so."""
    if backbone.device.type != "cpu":
        return f"on {backbone.device} torch alone computes"
    if backbone.dtype != torch.float32:
        return "an engine chooses its own precision, so the dtype has to be float32"
    if not isinstance(getattr(backbone, "model", None), nn.Module):
        return "has no network that an engine could run"
    return ""


def _with_openvino(backbone: Backbone) -> Backbone:
    if find_spec("openvino") is None:
        raise SettingError("the engine openvino is not installed; pip install 'kshot[fast]'")
    precision = _openvino.precision()
    name = f"openvino.{precision}"
    compiled = _checked(backbone, name, _openvino.version(), lambda: _openvino.compiled(backbone, precision))
    return _accelerated(backbone, _openvino.Network(compiled, precision), "openvino", name)


def _with_autocast(backbone: Backbone) -> Backbone:
    if not has_matrix_units():  # elsewhere bfloat16 is emulated, or was not measured
        raise SettingError("the engine autocast needs a processor with matrix units for bfloat16 (AMX)")
    name, encode = "autocast.bfloat16", _autocast(backbone)
    _checked(backbone, name, torch.__version__, lambda: (b"", encode))
    return _accelerated(backbone, encode, "autocast", name)


# From the fastest to the slowest.
_SETUPS: dict[str, Callable[[Backbone], Backbone]] = {"openvino": _with_openvino, "autocast": _with_autocast}
ENGINES = ("auto", "torch", *_SETUPS)


def _accelerated(backbone: Backbone, encode: _Encode, engine: str, precision: str) -> Backbone:
    kind = AcceleratedTextEncoder if isinstance(backbone, TextEncoder) else Accelerated
    return kind(backbone, encode, engine, precision)


def _autocast(backbone: Backbone) -> _Encode:
    def encode(pixels: Tensor) -> Encoding:
        with torch.autocast("cpu", torch.bfloat16):
            encoding = backbone.encode(pixels)
        return Encoding(*(None if part is None else part.float() for part in encoding))  # type: ignore[arg-type]

    return encode


def _checked(backbone: Backbone, name: str, version: str, make: Callable[[], tuple[bytes, _Encode]]) -> Compiled:
    """What `make` compiles, or an earlier run did. Raises `BackboneError` where it fails or does not agree."""
    key = _key(backbone, name, version)
    found = read_compiled(key)
    if found is None:
        log.info("%s: setting up %s, once on this machine", backbone.spec.name, name)
        problem, data = "", b""
        try:
            data, encode = make()
            agreement = agreement_with(backbone, encode)
            problem = "" if agreement.enough else f"its features differ from those of float32: {agreement}"
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
            # Tracing and compiling reach all of a model's code, and fail as it pleases them.
            problem = f"it cannot run this network ({type(error).__name__}: {str(error).strip()[:300]})"
        found = write_compiled(key, Compiled(problem, b"" if problem else data))
    if found.problem:
        raise BackboneError(f"{backbone.spec.name}: the engine {name} is not used: {found.problem}")
    return found


def _key(backbone: Backbone, name: str, version: str) -> str:
    """Of the compiled network: all that decides what it computes, the code of the backbone included."""
    source = getattr(sys.modules[type(backbone).__module__], "__file__", None)
    code = Path(source).read_bytes() if source else b""
    transformers = getattr(sys.modules.get("transformers"), "__version__", "")
    facts = _VERSION, backbone.identity, backbone.spec, name, version, torch.__version__, transformers
    return hashlib.sha256(repr(facts).encode() + code).hexdigest()


def agreement_with(backbone: Backbone, encode: _Encode) -> Agreement:
    """How well what `encode` gives agrees with the backbone itself, over the photographs of scikit-image."""
    cosines, kept = [], []
    for image in _photographs():
        frame = Frame.fit((image.shape[0], image.shape[1]), backbone.spec.size, backbone.spec.patch)
        pixels = prepare(image, frame, backbone.spec)[None]
        own, other = _tokens(backbone.encode(pixels)), _tokens(encode(pixels))
        if own.shape != other.shape:  # a network that was traced for one size alone
            return Agreement(0.0, 0.0)
        cosines.append(float((own * other).sum(1).mean()))
        kept.append(float((_nearest(own) == _nearest(other)).float().mean()))
    return Agreement(sum(cosines) / len(cosines), sum(kept) / len(kept))


def _tokens(encoding: Encoding) -> Tensor:
    """(n, c) patch tokens of unit length of the first image."""
    return F.normalize(encoding.dense[0].float().flatten(1).T, dim=1)


def _nearest(tokens: Tensor) -> Tensor:
    """(n,) index of the nearest other token of each of (n, c)."""
    return (tokens @ tokens.T).fill_diagonal_(-2).argmax(1)


def _photographs() -> list[Any]:
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ImageReadError("scikit-image is not installed; pip install scikit-image")
    return [read_image(Path(spec.origin).parent / "data" / name) for name in _PHOTOS]
