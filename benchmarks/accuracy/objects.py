"""Objects that touch: counts, F1 and PQ at IoU 0.5, and AP50, of each way of taking masks apart.

    python -m benchmarks.accuracy.objects --root ../shared/data

nuclei (image.tif and labels.tif with a number per nucleus, such as the test image inside the StarDist 0.9.2 package):
the upper left quarter is the support, the others are labelled; `truth` splits the true foreground, which shows what the
split alone does; left out where --root has no folder "nuclei". coins: scikit-image's photograph; the coins of its
left third are the support, and the rest is counted by hand (12). Development figures, of one image each.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from skimage import data

import kshot
from kshot.annotations import rle
from kshot.io.bands import read_bands
from kshot.objects import Instance
from kshot.ops.components import METHODS
from kshot.types import Prediction, Thresholds, patch_pixels

Labels = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args()
    folder = options.root / "nuclei"
    rows = (nuclei(folder) if folder.is_dir() else {}) | coins()
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
    """Of images: counts, and what matches at an IoU over 0.5 (Kirillov et al., CVPR 2019, "Panoptic Segmentation")."""
    matched, total, error = 0, 0.0, 0
    for objects, truth in zip(found, truths, strict=True):
        areas = np.bincount(truth.ravel())
        for one in objects:
            shared = np.bincount(truth[one.place][one.crop], minlength=len(areas))
            shared[0] = 0
            best = int(shared.argmax())
            iou = shared[best] / (one.area + areas[best] - shared[best])
            matched, total = matched + int(iou > 0.5), total + (iou if iou > 0.5 else 0)
        error += abs(len(objects) - int((areas[1:] > 0).sum()))
    count, true = sum(map(len, found)), sum(len(np.unique(truth)) - 1 for truth in truths)
    f1, pq = (2 * value / (count + true) for value in (matched, total))
    return {
        "found": count,
        "true": true,
        "count error": round(error / true, 3),
        "F1": round(f1, 3),
        "PQ": round(pq, 3),
        "AP50": round(average_precision(found, truths), 3),
    }


def average_precision(found: Sequence[Sequence[Instance]], truths: Sequence[Labels]) -> float:
    """COCO's AP at an IoU of 0.5, by pycocotools."""
    truth, entries = COCO(), list[dict[str, Any]]()
    images = [{"id": i, "height": t.shape[0], "width": t.shape[1]} for i, t in enumerate(truths, start=1)]
    for i, labels in enumerate(truths, start=1):
        for number in np.unique(labels[labels > 0]):
            mask = rle.encode(labels == number)
            facts = {"id": len(entries) + 1, "image_id": i, "category_id": 1, "iscrowd": 0}
            entries.append(facts | {"segmentation": mask, "area": rle.area(mask), "bbox": rle.box_xywh(mask)})
    results = [
        {"image_id": i, "category_id": 1, "segmentation": rle.encode(one.mask), "score": one.score or 0.0}
        for i, objects in enumerate(found, start=1)
        for one in objects
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "object"}]}
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(results), "segm")
        run.params.maxDets = [1, 10, 1000]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][0, :, 0, 0, 2]
    return float(precision[precision > -1].mean())


if __name__ == "__main__":
    main()
