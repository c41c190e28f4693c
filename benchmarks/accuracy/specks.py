"""What leaving out small components costs, and what it removes: why `SPECK_PATCHES` patch tokens.

On each development set a task of all classes (three supports each) predicts other images. Components of the masks are
counted by their area in patch tokens; one is right when half of its pixels lie in its class. For each least area: the
components that are kept, how many of the others are right, the mIoU of what is kept, and the fraction of the marked
area that lies in components so small.

python -m benchmarks.accuracy.specks --out benchmarks/results/specks.json
"""

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.settings import KINDS, open_kind
from benchmarks.settings import arguments, facts, percent, write
from kshot.data.base import Dataset
from kshot.ops.components import connected_components
from kshot.segmenter import Segmenter
from kshot.types import IGNORE, Shot, patch_pixels

LEAST = (0, 0.5, 1, 2, 4, 8, 16)  # patch tokens
_SUPPORTS, _MIN_SHARE = 3, 0.01  # of a class; of its image that a support shows at least


@dataclass(frozen=True)
class Component:
    """One component of a class in an image."""

    label: int
    area: int
    right: int
    """Pixels of it that the other mask has too."""
    tokens: float
    """Its area in patch tokens."""


def main() -> None:
    parser = arguments(__doc__, "out", "seed")
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--sets", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    segmenter, rows = Segmenter(), []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            data = open_kind(name, Path(folder))
            rows += _rows_of(name, *_components(segmenter, data, options.queries, options.seed))
            print(json.dumps(rows[-len(LEAST) :]), flush=True)
    write(options.out, {"about": facts(), "supports": _SUPPORTS, "queries": options.queries, "rows": rows})


def _components(
    segmenter: Segmenter, data: Dataset, queries: int, seed: int
) -> tuple[list[Component], list[Component]]:
    """Those of the predictions, and those of the truth."""
    used, shots = set(), []
    for label in range(1, len(data.classes) + 1):
        showing = (i for i in data.ids() if i not in used and (data.truth(i) == label).mean() >= _MIN_SHARE)
        for image, _ in zip(showing, range(_SUPPORTS), strict=False):
            used.add(image)
            mask = data.truth(image)
            shown = sorted(set(np.unique(mask).tolist()) - {0, IGNORE})
            shots.append(Shot(data.image_path(image), mask=mask, label={n: data.classes[n - 1] for n in shown}))
    task = segmenter.fit(shots)
    rest = [image for image in data.ids() if image not in used]
    chosen = np.random.default_rng(seed).permutation(len(rest))[:queries]
    predicted: list[Component] = []
    marked: list[Component] = []
    for image in (rest[int(i)] for i in sorted(chosen)):
        truth, found = data.truth(image), segmenter.predict(task, data.image_path(image)).mask
        token = patch_pixels(truth.shape, segmenter.size, segmenter.backbone.spec.patch)
        for place, name in enumerate(task.classes, 1):
            label = data.classes.index(name) + 1
            predicted += _of(found == place, truth == label, label, token)
            marked += _of(truth == label, found == place, label, token)
    return predicted, marked


def _of(mask: Any, other: Any, label: int, token: float) -> list[Component]:
    return [
        Component(label, int(inside.sum()), int((other[place] & inside).sum()), float(inside.sum()) / token)
        for place, inside in connected_components(mask)
    ]


def _rows_of(name: str, predicted: list[Component], marked: list[Component]) -> list[dict[str, Any]]:
    truth: dict[int, int] = defaultdict(int)
    for one in marked:
        truth[one.label] += one.area
    rows = []
    for least in LEAST:
        kept = [one for one in predicted if one.tokens >= least]
        gone = [one for one in predicted if one.tokens < least]
        sums = {label: [sum(v) for v in zip(*_areas(kept, label), strict=True)] for label in truth}
        ious = [right / (area + truth[label] - right) for label, (area, right) in sums.items()]
        small = sum(one.area for one in marked if one.tokens < least) / sum(truth.values())
        right = sum(2 * one.right >= one.area for one in gone)
        figures = {"kept": len(kept), "left_out": len(gone), "right_among_them": right}
        rows.append({"set": name, "least": least, **figures, "miou": percent(float(np.mean(ious))), "marked": small})
    return rows


def _areas(components: list[Component], label: int) -> list[tuple[int, int]]:
    return [(0, 0), *((one.area, one.right) for one in components if one.label == label)]


if __name__ == "__main__":
    main()
