"""What refiners cost: medians over pictures of the development data, with the true mask as the decision.

    python -m benchmarks.speed.refiners --out benchmarks/results/refiners.json

All refiners see the same pictures by turns in one run. Seconds are the processor's, which a busy machine changes less
than the clock's; the ratios count.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.settings import facts, shared
from kshot import _plugins
from kshot.data.base import Dataset, load_dataset
from kshot.io.images import read_image
from kshot.ops.geometry import Frame, to_grid


def main() -> None:
    options = _options()
    data = load_dataset("voc", options.root)
    seconds: dict[str, list[float]] = {name: [] for name in options.refiners}
    for image in data.ids()[: options.images]:
        picture, logits, frame = _case(data, image, options.size)
        for name in options.refiners:
            module: Any = _plugins.load("refiners", name)
            started = time.process_time()
            module.refine(logits, frame, picture, module.Settings())
            seconds[name].append(time.process_time() - started)
    medians = {name: round(statistics.median(values[3:]), 4) for name, values in seconds.items()}  # three warm up
    slowest = {name: round(max(values[3:]), 4) for name, values in seconds.items()}
    print({"median_s": medians, "slowest_s": slowest})
    if options.out:
        report = {"facts": facts(), "images": options.images, "median_s": medians, "slowest_s": slowest}
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def _case(data: Dataset, image: str, size: int) -> tuple[NDArray[np.uint8], Tensor, Frame]:
    """A picture, and logits of -4..4 for its largest class on the grid."""
    picture, truth = read_image(data.image_path(image)), data.truth(image)
    frame = Frame.fit((picture.shape[0], picture.shape[1]), size, 16)
    areas = np.bincount(truth.ravel(), minlength=256)
    largest = int(areas[1:255].argmax()) + 1
    plane = (to_grid(torch.from_numpy(truth == largest).float(), frame) - 0.5) * 8
    return picture, torch.stack([torch.zeros_like(plane), plane]), frame


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=shared("data/VOCdevkit/VOC2012"))
    parser.add_argument("--refiners", nargs="+", default=["none", "edges", "crf"])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
