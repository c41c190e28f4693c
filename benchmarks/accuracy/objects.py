"""Objects that touch: count error, F1 and PQ at IoU 0.5, and AP50, of each way of taking masks apart.

    python -m benchmarks.accuracy.objects --root ../shared/data

nuclei (image.tif and labels.tif with a number per nucleus, such as the test image inside the StarDist 0.9.2 package):
the upper left quarter is the support, the others are labelled; `truth` splits the true foreground, which shows what the
split alone does; left out where --root has no folder "nuclei". coins: scikit-image's photograph; the coins of its
left third are the support, and the rest is counted by hand (12). Development figures, of one image each.
wbc and domains/granular: 60 episodes of 1-way 5-shot. Their masks tell classes and no objects; the 4-connected pieces
of a class of at least 30 pixels stand for them (in granular dark lines between grains are background, so most grains
are a piece each; a nucleus of wbc has one to four lobes).
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import data

import kshot
from kshot.data.base import load_dataset
from kshot.io.bands import read_bands
from kshot.metrics import ObjectFigures, match_objects
from kshot.objects import Instance
from kshot.ops.components import METHODS, connected_components
from kshot.types import Prediction, Thresholds, patch_pixels

Labels = NDArray[np.int64]
_LEAST = 30  # pixels of a piece that counts as an object


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args()
    folder = options.root / "nuclei"
    rows = (nuclei(folder) if folder.is_dir() else {}) | coins()
    for name in ("wbc", "domains/granular"):
        rows |= pieces(options.root / name)
    print(json.dumps(rows, indent=1))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def nuclei(folder: Path) -> dict[str, dict[str, float]]:
    image = read_bands(folder / "image.tif")[..., 0]
    labels = read_bands(folder / "labels.tif")[..., 0].astype(np.int64)
    shown, *asked = [(slice(y, y + 256), slice(x, x + 256)) for y in (0, 256) for x in (0, 256)]
    task, seg = _fitted(image[shown], labels[shown], "nucleus")
    found = [_kept(seg, seg.predict(task, image[place])) for place in asked]
    exact = [_exact(labels[place] > 0, found[0]) for place in asked]
    truths = [labels[place] for place in asked]
    return {
        f"nuclei, {kind}, {method}": figures([p.instances(method) for p in predictions], truths)
        for kind, predictions in (("truth", exact), ("predicted", found))
        for method in METHODS
    }


def coins() -> dict[str, dict[str, float]]:
    image = data.coins()[:225]  # without the last row, where a coin lies across the border
    # The six coins of the left third, as circles that were drawn by hand: (x, y, radius).
    circles = [(45, 54, 22), (100, 57, 19), (46, 124, 21), (103, 126, 19), (44, 197, 19), (102, 196, 22)]
    rows, columns = np.mgrid[: image.shape[0], :128]
    numbers = np.zeros(rows.shape, np.int64)
    for number, (x, y, radius) in enumerate(circles, start=1):
        numbers[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
    task, seg = _fitted(image[:, :128], numbers, "coin")
    pred = _kept(seg, seg.predict(task, image[:, 128:]))
    return {f"coins, {method}": {"found": len(pred.instances(method)), "true": 12} for method in METHODS}


def _fitted(image: NDArray[np.generic], numbers: Labels, name: str) -> tuple[kshot.Task, kshot.Segmenter]:
    seg = kshot.Segmenter(device="cpu")
    return seg.fit([kshot.Shot(image, mask=numbers, label=name)]), seg


def _kept(seg: kshot.Segmenter, pred: Prediction) -> Prediction:
    """Without components below two patch tokens, as in a run."""
    spec = seg.feature_spec
    least = Thresholds().least_pixels(pred.size_hw, patch_pixels(pred.size_hw, spec.size, spec.patch))
    return pred.filtered(min_area=least)


def _exact(inside: NDArray[np.bool_], like: Prediction) -> Prediction:
    scores = np.stack([~inside, inside]).astype(np.float32)
    return Prediction.from_scores(scores, like.classes, shapes=like.shapes)


def figures(found: Sequence[Sequence[Instance]], truths: Sequence[Labels]) -> dict[str, float]:
    """Of images: counts, and what `kshot eval --instances` says of objects."""
    images = [
        match_objects([(one.place, one.crop) for one in objects], [one.score or 0.0 for one in objects], truth)
        for objects, truth in zip(found, truths, strict=True)
    ]
    counts = {"found": sum(map(len, found)), "true": sum(image.true for image in images)}
    return counts | _named(ObjectFigures.of([images]))


def _named(found: ObjectFigures) -> dict[str, float]:
    names = {"count error": found.count_error, "F1": found.rq, "PQ": found.pq, "AP50": found.ap50}
    return {name: round(value, 3) for name, value in names.items()}


def pieces(root: Path, shot: int = 5, episodes: int = 60) -> dict[str, dict[str, float]]:
    """A set whose masks tell classes alone: pieces of a class that no other pixel joins count as its objects."""
    given = load_dataset("folder", root)
    samples = {name: sample._replace(objects=partial(_pieces, sample.mask)) for name, sample in given.samples.items()}
    data, seg, rows = replace(given, samples=samples), kshot.Segmenter(device="cpu"), dict[str, dict[str, float]]()
    with tempfile.TemporaryDirectory() as cache:
        for method in METHODS:
            result = kshot.evaluate(seg, data, shot=shot, episodes=episodes, instances=method, cache=cache)
            if result.objects is not None:
                found = {"mIoU": round(result.miou, 3), **_named(result.objects)}
                rows[f"{given.name}, {shot} shots, {method}"] = found
    return rows


def _pieces(mask: Callable[[], NDArray[Any]]) -> Labels:
    labels, numbers, count = mask(), np.zeros(mask().shape, np.int64), 0
    for label in np.unique(labels[labels > 0]):
        for place, crop in connected_components(labels == label, corners=False):
            if crop.sum() >= _LEAST:
                count += 1
                numbers[place][crop] = count
    return numbers


if __name__ == "__main__":
    main()
