"""What refiners cost: medians over images of the development data, with the true mask as the decision.

    python -m benchmarks.speed.refiners --out benchmarks/results/refiners.json

All refiners see the same images by turns in one run. Seconds are the processor's, which a busy machine changes less
than the clock's; the ratios count.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.settings import arguments, facts, write
from kshot import _plugins
from kshot.data.base import Dataset, load_dataset
from kshot.io.images import read_image
from kshot.ops.geometry import Frame, to_grid


def main() -> None:
    options = _options()
    data = load_dataset("voc", options.root)
    seconds: dict[str, list[float]] = {name: [] for name in options.refiners}
    for image_id in data.ids()[: options.images]:
        image, logits, frame = _case(data, image_id, options.size)
        for name in options.refiners:
            module: Any = _plugins.load("refiners", name)
            started = time.process_time()
            module.refine(logits, frame, image, module.Settings())
            seconds[name].append(time.process_time() - started)
    medians = {name: round(statistics.median(values[3:]), 4) for name, values in seconds.items()}  # three warm up
    slowest = {name: round(max(values[3:]), 4) for name, values in seconds.items()}
    print({"median_s": medians, "slowest_s": slowest})
    if options.out:
        report = {"facts": facts(), "images": options.images, "median_s": medians, "slowest_s": slowest}
        write(options.out, report)


def _case(data: Dataset, image_id: str, size: int) -> tuple[NDArray[np.uint8], Tensor, Frame]:
    """An image, and logits of -4..4 for its largest class on the grid."""
    image, truth = read_image(data.image_path(image_id)), data.truth(image_id)
    frame = Frame.fit((image.shape[0], image.shape[1]), size, 16)
    areas = np.bincount(truth.ravel(), minlength=256)
    largest = int(areas[1:255].argmax()) + 1
    plane = (to_grid(torch.from_numpy(truth == largest).float(), frame) - 0.5) * 8
    return image, torch.stack([torch.zeros_like(plane), plane]), frame


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "root", "out", size=448)
    parser.add_argument("--refiners", nargs="+", default=["none", "edges", "crf"])
    parser.add_argument("--images", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    main()
