"""OpenVINO as an inference engine: a backbone's `encode` is traced, compiled for this processor, and run.

Height and width stay variables of the compiled network, so that images of any aspect ratio need no other one. Needs
the extra `fast`.
"""

import importlib
import queue
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kshot.backbones.base import Backbone, Encoding
from kshot.features._compiled_files import Compiled
from kshot.ops.processor import core_count

_PARTS = tuple(Encoding._fields)
_TELEMETRY, _CONVERTER = "openvino_telemetry", "openvino.tools.ovc"


class Network:
    """A compiled network: images (1, 3, H, W) to encodings, from any thread.

    It computes with as many threads as torch does at the time, so that worker processes share the cores.
    """

    def __init__(self, compiled: Compiled, precision: str):
        self._data, self._precision = compiled.data, precision
        self._by_threads: dict[int, _Requests] = {}

    def __call__(self, pixels: Tensor) -> Encoding:
        threads = torch.get_num_threads()
        requests = self._by_threads.get(threads)
        if requests is None:
            requests = self._by_threads.setdefault(threads, _Requests(self._data, self._precision, threads))
        return requests.encode(pixels)


class _Requests:
    """A network in memory and its requests, of which each serves one call at a time."""

    def __init__(self, data: bytes, precision: str, threads: int):
        self._network = _core().import_model(data, "CPU", _settings(precision, threads))
        self._names = [output.get_any_name() for output in self._network.outputs]
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def encode(self, pixels: Tensor) -> Encoding:
        """The encoding of an image (1, 3, H, W) float32."""
        with self._request() as request:
            array = pixels.contiguous().numpy()
            request.set_input_tensor(load().Tensor(array, shared_memory=True))
            request.infer()
            parts = {
                name: torch.from_numpy(request.get_output_tensor(index).data.copy())
                for index, name in enumerate(self._names)
            }
        return Encoding(**parts)

    @contextmanager
    def _request(self) -> Iterator[Any]:
        try:
            request = self._free.get_nowait()
        except queue.Empty:
            request = self._network.create_infer_request()
        yield request
        self._free.put(request)


class _Traced(nn.Module):
    """`encode` of a backbone as a module that returns tensors alone; `names` are set by its first call."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone, self.names = backbone, list[str]()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The parts of the encoding that there are."""
        parts = zip(_PARTS, self.backbone.encode(pixels), strict=True)
        found = {name: part.float() for name, part in parts if part is not None}
        self.names = list(found)
        return tuple(found.values())


def load() -> Any:
    """The module openvino.

    Its model converter reports to its makers that it was imported and what it converts, unless a package that comes
    with it is missing. A tool that labels private images tells nobody, so the package stays hidden from it. The
    converter itself imports as slowly as all the rest, and is seldom needed: it is imported when it is called.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    with _hidden(_TELEMETRY, _CONVERTER):
        module: Any = importlib.import_module("openvino")
    module.convert_model = _convert_model
    return module


def _convert_model(*given: Any, **settings: Any) -> Any:
    with _hidden(_TELEMETRY):
        converter = importlib.import_module(_CONVERTER)
    return converter.convert_model(*given, **settings)


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Modules cannot be imported meanwhile, unless they have been."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def version() -> str:
    """Of OpenVINO, with what it finds in this processor."""
    return f"{load().__version__} {sorted(_core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))}"


def precision() -> str:
    """bfloat16 where the processor has units for it, else float32."""
    return "bfloat16" if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"


def compiled(backbone: Backbone, precision: str) -> tuple[bytes, Callable[[Tensor], Encoding]]:
    """A backbone's `encode`, compiled, as bytes and as a function. Raises what tracing and compiling raise."""
    openvino, module, patch = load(), _Traced(backbone).eval(), backbone.spec.patch
    with torch.inference_mode(), warnings.catch_warnings():
        # What tracing warns of, sizes that become constants, is found by the comparison that follows.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, torch.zeros(1, 3, 5 * patch, 7 * patch), check_trace=False, strict=False)
        model = openvino.convert_model(traced)
    model.reshape([1, 3, -1, -1])
    for output, name in zip(model.outputs, module.names, strict=True):
        output.get_tensor().set_names({name})
    network = _core().compile_model(model, "CPU", _settings(precision, torch.get_num_threads()))
    data = network.export_model()
    data = data if isinstance(data, bytes) else data.getvalue()
    return data, Network(Compiled("", data), precision)


def _core() -> Any:
    return load().Core()


def _settings(precision: str, threads: int) -> dict[str, Any]:
    """Of a network that computes an image with so many threads, and as many images at once as the cores then allow."""
    streams = max(1, core_count() // threads)
    return {
        "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[precision],
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams * threads,
        "ENABLE_CPU_PINNING": False,  # pinned threads of two processes would meet on one core
    }
