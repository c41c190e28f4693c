"""`toy`, a tiny deterministic encoder: patch means, contrasts and edges, seen through a fixed projection."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.backbones.base import Encoding, Spec, fingerprint
from kshot.errors import SettingError

SPECS = {
    "toy": Spec("toy", patch=8, dim=16, mean_rgb=(0.5,) * 3, std_rgb=(0.5,) * 3, licence="Apache-2.0", source="kshot"),
}
_LAYERS = 2


class Toy:
    """Two "layers": one of what a patch looks like, one of what it looks like among its neighbours."""

    def __init__(self, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...]):
        self.spec, self.device, self.dtype, self.layers = SPECS["toy"], device, dtype, layers
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(self.spec.dim, 9, generator=generator)
        self.identity = fingerprint({"weight": self.weight}, "toy", layers)
        self.weight = self.weight.to(device, dtype)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Encoding:
        """Encode (b, 3, H, W) into (b, 16 per layer, H / 8, W / 8)."""
        pixels = pixels.to(self.device, self.dtype)
        mean = F.avg_pool2d(pixels, self.spec.patch)
        spread = (F.avg_pool2d(pixels**2, self.spec.patch) - mean**2).clamp(min=0).sqrt()
        around = F.avg_pool2d(F.pad(mean, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        facts = torch.cat([mean, spread, around], 1)
        first = torch.einsum("dc,bchw->bdhw", self.weight, facts)
        second = F.avg_pool2d(F.pad(first, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        outputs = [F.normalize((first, second)[int(k) - 1].float(), dim=1) for k in self.layers]
        dense = torch.cat(outputs, 1)
        return Encoding(dense, F.normalize(dense.mean((2, 3)), dim=1))


def load(name: str, device: torch.device, dtype: torch.dtype, layers: tuple[str, ...] | None) -> Toy:
    """The toy; layers 1 and 2 exist."""
    chosen = layers or (str(_LAYERS),)
    if not set(chosen) <= {str(n) for n in range(1, _LAYERS + 1)}:
        raise SettingError(f"toy has layers 1..{_LAYERS}, got {', '.join(chosen)}")
    return Toy(device, dtype, chosen)
