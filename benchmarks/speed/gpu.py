"""Images a second of encoders of four sizes on a GPU, against what its matrix units could do.

    python -m benchmarks.speed.gpu --out benchmarks/results/gpu.json

The networks are kshot's own vision transformer in the shapes of ViT-Tiny, ViT-S, ViT-B and ViT-L, with random weights,
in bfloat16. The bound is measured, not read from a data sheet: the rate of large bfloat16 products on the same device.
Floating-point operations are those of the products alone, two for each multiply-add. `features` is the whole path from
decoded images to feature maps on the host (`extract_many`). On a CPU (`--device cpu --batches 2 --networks ViT-Tiny`)
the same code runs, which shows that it works and nothing about a GPU.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.settings import arguments, facts, write
from kshot.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Spec, pick_device
from kshot.backbones.tiny import STRIDE, Net, NetSizes, Tiny
from kshot.features import extract_many

NETWORKS = {
    "ViT-Tiny": NetSizes(width=192, heads=3),
    "ViT-S": NetSizes(width=384, heads=6),
    "ViT-B": NetSizes(width=768, heads=12),
    "ViT-L": NetSizes(width=1024, heads=16, blocks=24, layers=(20, 24)),
}


def main() -> None:
    options = _options()
    device = pick_device(options.device)
    report: dict[str, Any] = {"facts": facts(), "device": _name(device), "load": os.getloadavg()[0], "rows": []}
    report["products_tflops"] = round(_products(device, options.seconds) / 1e12, 2)
    for name in options.networks:
        spec = Spec(name, STRIDE, NetSizes.dim, IMAGENET_MEAN, IMAGENET_STD)
        backbone = Tiny(spec, Net(NETWORKS[name]), device, torch.bfloat16)
        for batch in options.batches:
            row = _row(backbone, batch, options, report["products_tflops"] * 1e12)
            report["rows"].append({"network": name, "batch": batch, **row})
            print(report["rows"][-1], flush=True)
    write(options.out, report)


def _row(backbone: Tiny, batch: int, options: argparse.Namespace, bound: float) -> dict[str, Any]:
    side = options.size
    pixels = torch.rand(batch, 3, side, side, device=backbone.device, dtype=torch.bfloat16)
    images = [np.random.default_rng(seed).integers(0, 256, (375, 500, 3), np.uint8) for seed in range(batch)]
    encoded = batch * _rate(lambda: backbone.encode(pixels), backbone.device, options.seconds)
    features = batch * _rate(lambda: extract_many(backbone, images, side, batch), backbone.device, options.seconds)
    return {
        "encoded_per_s": round(encoded, 1),
        "features_per_s": round(features, 1),
        "share_of_products": round(encoded * operations(backbone.model.sizes, side) / bound, 3),
    }


def operations(sizes: NetSizes, side: int) -> float:
    """Floating-point operations of the products of one image."""
    patches, width = (side // STRIDE) ** 2, sizes.width
    tokens = patches + 1
    block = 12 * width**2 * tokens + 2 * width * tokens**2  # multiply-adds: projections and perceptron; attention
    ends = patches * width * 3 * STRIDE**2 + tokens * width * len(sizes.layers) * sizes.dim
    return 2.0 * (sizes.blocks * block + ends)


def _products(device: torch.device, seconds: float) -> float:
    """Floating-point operations a second of large products in bfloat16."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.rand(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2.0 * side**3 * _rate(lambda: left @ right, device, seconds)


def _rate(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Calls a second, of which the first few warm up."""
    with torch.inference_mode():
        for _ in range(3):
            run()
        _wait(device)
        started, calls = time.perf_counter(), 0
        while calls < 3 or time.perf_counter() - started < seconds:
            run()
            calls += 1
            if calls % 8 == 0:  # a queue of calls without end would take the device's memory
                _wait(device)
        _wait(device)
    return calls / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "out", size=432)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=3.0, help="Of each measurement.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
