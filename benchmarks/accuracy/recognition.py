"""How well a backbone tells which of two classes a thing is, when somebody has cut it out already.

    python -m benchmarks.accuracy.recognition --sets voc coco-mini --out benchmarks/results/recognition.json

A bound on `pred.present` in episodes of two ways (protocol `fs-cs`), over queries that show just one of them: support
and query are cut around the class by their true masks, all else is grey, both are encoded anew, and their cosine is
asked which way the query shows. A method that has to find the thing first can hardly do better on the same features.
"""

import argparse
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.settings import SETS, arguments, facts, open_set, write
from kshot.data.base import Dataset
from kshot.episodes.sampler import draw_episodes
from kshot.features import extract
from kshot.io.images import read_image
from kshot.segmenter import Segmenter

_GREY, _MARGIN = 127, 0.1
CUES = ("token", "mean cell")


def main() -> None:
    options = _options()
    segmenter = Segmenter(backbone=options.backbone, size=options.size)
    report: dict[str, Any] = {
        "facts": facts(),
        "settings": {"backbone": Path(options.backbone).name, "size": options.size, "episodes": options.episodes},
        "rows": [],
    }
    for name in options.sets:
        data = open_set(name)
        for cue, row in _asked(data, segmenter, options).items():
            report["rows"].append({"data": name, "cue": cue, **row})
            print(report["rows"][-1], flush=True)
        write(options.out, report)


def _asked(data: Dataset, segmenter: Segmenter, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each cue: how often the way that is there is nearer, and the area under the curve."""
    seen = lru_cache(maxsize=None)(lambda image, label: _vectors(data, segmenter, image, label))
    there: list[list[float]] = [[] for _ in CUES]
    absent: list[list[float]] = [[] for _ in CUES]
    for episode in draw_episodes(data, "fs-cs", 2, 1, options.episodes, options.seed, drop_small=True):
        labels = data.way_mask(episode.query, episode.classes)
        shown = [way for way in (0, 1) if bool((labels == way + 1).any())]
        if len(shown) != 1:
            continue
        query = seen(episode.query, episode.classes[shown[0]])
        for way, label in enumerate(episode.classes):
            support = seen(episode.supports[way][0], label)
            for cue, (of_query, of_support) in enumerate(zip(query, support, strict=True)):
                (there if way == shown[0] else absent)[cue].append(float(of_query @ of_support))
    return {cue: _row(torch.tensor(there[i]), torch.tensor(absent[i])) for i, cue in enumerate(CUES)}


def _vectors(data: Dataset, segmenter: Segmenter, image: str, label: int) -> tuple[Tensor, Tensor]:
    """(c,) of unit length: the token of what was cut out, and the mean of its patch tokens."""
    cut = _cut(read_image(data.image_path(image)), data.way_mask(image, (label,)) == 1)
    features = extract(segmenter.backbone, cut, segmenter.size)
    mean = F.normalize(features.tokens.mean(0), dim=0)
    return (mean if features.token is None else F.normalize(features.token, dim=0)), mean


def _cut(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The box of a mask with a margin, grey where the mask is not."""
    sides = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis))
        margin = int(_MARGIN * (places[-1] + 1 - places[0]))
        sides.append(slice(max(0, places[0] - margin), places[-1] + 1 + margin))
    return np.where(mask[..., None], image, np.uint8(_GREY))[sides[0], sides[1]]


def _row(there: Tensor, absent: Tensor) -> dict[str, float]:
    above = (there[:, None] > absent).float().mean()
    return {
        "queries": len(there),
        "nearer": round(100 * float((there > absent).float().mean()), 1),
        "area_under_curve": round(float(above), 3),
    }


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "backbone", "seed", episodes=200, size=224)
    parser.add_argument("--sets", nargs="+", default=["voc", "coco-mini"], choices=list(SETS))
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
