"""What an image costs with kshot's default and with other segmenters, or with their encoders, in one run.

    python -m benchmarks.speed.peers --out benchmarks/results/peers.json

The peers have random weights in the shapes of their published configs (transformers), as speed does not depend on the
values; nothing is downloaded. kshot is the whole call: decoding, encoding, scoring and masks at full size. A peer is
its network alone on pixels of its own size, in float32 as its model card runs it, or with `--autocast` in bfloat16; the
part that a support needs once is left out where it can be. kshot is timed before and after each call of a peer, so that
a busy machine slows both.
"""

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import transformers

from benchmarks.settings import arguments, facts, write
from benchmarks.speed.predict import cat_shots
from kshot.features import precision_of
from kshot.segmenter import Segmenter

Call = Callable[[], object]


def main() -> None:
    options = _options()
    segmenter = Segmenter(device="cpu")
    task = segmenter.fit(cat_shots(options.root, 1))
    images = sorted((options.root / "JPEGImages").glob("*.jpg"))[: options.images]

    def kshot() -> float:
        return statistics.median(_seconds(lambda path=path: segmenter.predict(task, path)) for path in images)  # type: ignore[misc]

    kshot()  # warms up
    report: dict[str, Any] = {"facts": facts(), "engine": precision_of(segmenter.backbone), "load": os.getloadavg()[0]}
    report |= {"autocast": options.autocast, "rows": []}
    for name in options.peers:
        network = PEERS[name]()
        run = _call(network, options.autocast)
        run()  # warms up
        pairs = [(kshot(), _seconds(run), kshot()) for _ in range(options.turns)]
        ratio = statistics.median(2 * peer / (before + after) for before, peer, after in pairs)
        row = {"peer": name, "seconds": round(statistics.median(peer for _, peer, _ in pairs), 3)}
        row |= {"kshot_seconds": round(statistics.median(before for before, *_ in pairs), 4), "times": round(ratio, 1)}
        report["rows"].append(row)
        print(row, flush=True)
        write(options.out, report)
        del network, run
        gc.collect()


def _seconds(run: Call) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _call(network: Call, autocast: bool) -> Call:
    def run() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            network()

    return run


def _built(kind: str, config: Any) -> Any:
    """A network of transformers with random weights."""
    return getattr(transformers, kind)(config).eval()


def _pixels(side: int, height: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height or side, side)


def clipseg() -> Call:
    """CLIPSeg with an image as the prompt, whose embedding is made once."""
    model = _built("CLIPSegForImageSegmentation", transformers.CLIPSegConfig())
    pixels, prompt = _pixels(352), torch.rand(1, 512)
    return lambda: model(pixel_values=pixels, conditional_embeddings=prompt, interpolate_pos_encoding=True)


def seggpt() -> Call:
    """SegGPT: prompt and query share a canvas, so the prompt passes the network with each query."""
    model = _built("SegGptForImageSegmentation", transformers.SegGptConfig())
    pixels, prompt, mask = (_pixels(448) for _ in range(3))
    return lambda: model(pixel_values=pixels, prompt_pixel_values=prompt, prompt_masks=mask)


def sam_base() -> Call:
    """The image encoder of Segment Anything, ViT-B."""
    model = _built("SamModel", transformers.SamConfig())
    pixels = _pixels(1024)
    return lambda: model.get_image_embeddings(pixels)


def dinov2_large() -> Call:
    """DINOv2 ViT-L/14 at 518: the encoder of Matcher and GF-SAM, which run a SAM beside it."""
    config = transformers.Dinov2Config(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=518, patch_size=14
    )
    model = _built("Dinov2Model", config)
    pixels = _pixels(518)
    return lambda: model(pixel_values=pixels)


def sam3() -> Call:
    """The vision encoder of SAM 3."""
    model = _built("Sam3VisionModel", transformers.Sam3VisionConfig())
    pixels = _pixels(1008)
    return lambda: model(pixel_values=pixels)


PEERS: dict[str, Callable[[], Call]] = {
    "CLIPSeg, image prompt": clipseg,
    "SegGPT (ViT-L)": seggpt,
    "SAM's image encoder (ViT-B)": sam_base,
    "DINOv2-L at 518 (encoder of Matcher, GF-SAM)": dinov2_large,
    "SAM 3's vision encoder": sam3,
}


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "root", "out")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--images", type=int, default=8, help="Of kshot's calls around one call of a peer.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--autocast", action="store_true", help="Peers in bfloat16.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
