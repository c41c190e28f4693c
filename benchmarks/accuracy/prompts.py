"""How well boxes, points, scribbles and nothing become masks on the grid (`kshot.ops.prompt_masks`).

Prompts are simulated from VOC masks: the box of a class's largest component; three random points inside the eroded
mask, with and without three outside of it; a stroke through three such points; nothing. Each soft mask is compared
with the mask's coverage of the patches: `iou` cuts both at 0.5, `soft` is sum(min) / sum(max). Beside it stand a filled
box or disc, a plain cosine to the marked patch tokens, and a centre prior; the baselines' thresholds are the best of a
range on the same images, which flatters them. kshot's constants were chosen on the half "tune"; "confirm" was kept for
the figures.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.graph import route_through_array
from skimage.measure import label as components
from torch import Tensor

from benchmarks.settings import VIT_TINY, arguments, write
from kshot.backbones.base import load_backbone
from kshot.features import extract
from kshot.io.images import read_image, read_mask
from kshot.ops.geometry import FeatureMap, coverage, to_grid
from kshot.ops.prompt_masks import grow_boxes, grow_marks, salient

Array = NDArray[np.float64]
NONE: Array = np.zeros((0, 2))
IGNORE = 255
MIN_AREA = 2 * 32 * 32  # the smallest object of the field's lists, px
THRESHOLDS = np.linspace(0.02, 0.98, 49)


@dataclass(frozen=True)
class Case:
    """One prompt. truth: (h, w) bool. boxes (n, 4), points and negatives (p, 2), pixels."""

    kind: str
    truth: NDArray[np.bool_]
    boxes: Array = field(default_factory=lambda: np.zeros((0, 4)))
    points: Array = field(default_factory=lambda: NONE)
    negatives: Array = field(default_factory=lambda: NONE)


def read_pairs(root: Path, split: str) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """(half, image, labels) of the images in a VOC list; every second one is for tuning."""
    names = (root / "ImageSets/Segmentation" / f"{split}.txt").read_text().split()
    for index, name in enumerate(names):
        image = read_image(root / "JPEGImages" / f"{name}.jpg")
        labels = read_mask(root / "SegmentationClass" / f"{name}.png", drawn=False)
        yield ("tune", "confirm")[index % 2], image, labels


def cases_of(labels: NDArray[np.uint8], rng: np.random.Generator) -> Iterator[Case]:
    """Every prompt that one label map gives."""
    areas = {int(c): int((labels == c).sum()) for c in np.unique(labels) if c not in (0, IGNORE)}
    if areas:
        yield Case("nothing, all objects", (labels > 0) & (labels != IGNORE))
        yield Case("nothing, largest class", labels == max(areas, key=areas.__getitem__))
    for label, area in areas.items():
        if area >= MIN_AREA:
            yield from _of_class(labels == label, labels, rng)


def _of_class(mask: NDArray[np.bool_], labels: NDArray[np.uint8], rng: np.random.Generator) -> Iterator[Case]:
    parts = components(mask)
    rows, columns = np.nonzero(parts == 1 + np.bincount(parts[mask])[1:].argmax())
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float64)
    inside = np.zeros_like(mask)
    inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    points, away = _inner(mask, 3, rng), _inner((labels != IGNORE) & ~mask, 3, rng)
    yield Case("box", mask & inside, boxes=box)
    yield Case("box + 1 point", mask & inside, boxes=box, points=_inner(mask & inside, 1, rng))
    yield Case("1 point", mask, points=points[:1])
    yield Case("3 points", mask, points=points)
    stroke = _stroke(mask, points)
    yield Case("scribble", mask, points=stroke)
    if len(away):  # an object may fill the whole image
        yield Case("3 points, 3 negative", mask, points=points, negatives=away)
        yield Case("scribble, negative", mask, points=stroke, negatives=_stroke(~mask, away))


def _inner(mask: NDArray[np.bool_], count: int, rng: np.random.Generator) -> Array:
    """(count, 2) random points of the mask, ten pixels from its border where it is wide enough; none if empty."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth > min(10, depth.max() / 2))
    chosen = rng.integers(0, max(len(rows), 1), count if len(rows) else 0)
    return np.stack([columns[chosen], rows[chosen]], 1).astype(np.float64) + 0.5


def _stroke(mask: NDArray[np.bool_], points: Array) -> Array:
    """(n, 2) a line through the points that stays in the mask where it can, a point every four pixels."""
    cost = np.where(mask, 1.0, 50.0)
    ends = [(int(y), int(x)) for x, y in points]
    lines = [route_through_array(cost, a, b)[0][::4] for a, b in pairwise(ends)]
    return np.concatenate([np.array(line, np.float64)[:, ::-1] for line in lines]) + 0.5


def grow(features: FeatureMap, case: Case) -> Tensor:
    """(gh, gw) as kshot does it."""
    if len(case.boxes):
        return grow_boxes(features, case.boxes, case.points, case.negatives)
    if len(case.points):
        return grow_marks(features, case.points, case.negatives)
    return salient(features)


def filled(features: FeatureMap, case: Case) -> Tensor:
    """(gh, gw): the box, or a soft disc around each mark, or the whole image."""
    if len(case.boxes):
        return _box(features, case)
    if len(case.points):
        return _discs(features, case.points, 0.15)
    return torch.ones(features.grid_hw)


def centre(features: FeatureMap, case: Case) -> Tensor:
    """(gh, gw): a Gaussian in the middle of the box, around the middle of the marks, or in the middle of the image."""
    height, width = features.frame.size_hw
    x0, y0, x1, y1 = case.boxes[0] if len(case.boxes) else (0, 0, width, height)
    if len(case.points) and not len(case.boxes):
        return _discs(features, case.points.mean(0, keepdims=True), 0.3)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    far = ((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2
    return to_grid(torch.exp(-4 * far), features.frame) * _box(features, case)


def cosine(features: FeatureMap, case: Case) -> Tensor:
    """(gh, gw): cosine to the mean of the marked patch tokens, less that to the mean of negative (or other) ones."""
    if not len(case.points) and not len(case.boxes):
        return 1 - _towards(features, torch.ones(features.grid_hw))
    box = _box(features, case)
    marked = _marked(features, case.points) if len(case.points) else box
    away = _marked(features, case.negatives) if len(case.negatives) else 1 - (box if len(case.boxes) else marked)
    return ((1 + _towards(features, marked) - _towards(features, away)) / 2).clamp(0, 1) * box


def _towards(features: FeatureMap, weights: Tensor) -> Tensor:
    mean = torch.nn.functional.normalize(weights.flatten() @ features.tokens, dim=0)
    return (features.tokens @ mean).reshape(features.grid_hw)


def _box(features: FeatureMap, case: Case) -> Tensor:
    plane = torch.ones(features.frame.size_hw)
    if len(case.boxes):
        x0, y0, x1, y1 = case.boxes[0].astype(int)
        plane = torch.zeros(features.frame.size_hw)
        plane[y0:y1, x0:x1] = 1
    return to_grid(plane, features.frame)


def _marked(features: FeatureMap, points: Array) -> Tensor:
    plane = torch.zeros(features.grid_hw)
    for x, y in points:
        plane[features.frame.patch_at(x, y)] = 1
    return plane


def _discs(features: FeatureMap, points: Array, radius: float) -> Tensor:
    """(gh, gw): the nearest point's Gaussian, `radius` in shares of the grid's side."""
    rows, columns = features.grid_hw
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    cells = torch.tensor([features.frame.patch_at(*point) for point in points])
    far = (y[..., None] - cells[:, 0]) ** 2 + (x[..., None] - cells[:, 1]) ** 2
    return torch.exp(-far.amin(-1) / (2 * radius**2 * rows * columns))


METHODS: dict[str, Callable[[FeatureMap, Case], Tensor]] = {
    "kshot": grow,
    "filled": filled,
    "cosine": cosine,
    "centre": centre,
}


@dataclass
class Scores:
    """Per case: the IoU at every threshold, the soft IoU, the seconds."""

    iou: list[Array] = field(default_factory=list)
    soft: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def row(self, fixed: bool) -> dict[str, float]:
        """Means; `fixed` cuts at 0.5, else at the threshold that is best on average."""
        curve = np.mean(self.iou, 0)
        best = len(THRESHOLDS) // 2 if fixed else int(curve.argmax())
        return {
            "iou": round(float(curve[best]), 4),
            "threshold": round(float(THRESHOLDS[best]), 2),
            "soft": round(float(np.mean(self.soft)), 4),
            "seconds": round(float(np.median(self.seconds)), 4),
            "cases": len(self.soft),
        }


def compare(found: Tensor, truth: Tensor, valid_mask: Tensor) -> tuple[Array, float]:
    """IoU at every threshold and soft IoU of planes (gh, gw); patches that are mostly unlabelled don't count."""
    counts = valid_mask > 0.5
    shown, wanted = found[counts].numpy(), truth[counts].numpy()
    hard = shown[None] > THRESHOLDS[:, None]  # (t, n)
    both, either = (hard & (wanted > 0.5)).sum(1), (hard | (wanted > 0.5)).sum(1)
    soft = float(np.minimum(shown, wanted).sum() / max(np.maximum(shown, wanted).sum(), 1e-6))
    return both / np.maximum(either, 1), soft


def measure(root: Path, split: str, backbone: str, layers: tuple[int, ...], size: int, seed: int) -> dict[str, Scores]:
    """{half | prompt | method: scores} over all images of a list."""
    encoder = load_backbone(backbone, device="cpu", layers=layers or None)
    scores: dict[str, Scores] = defaultdict(Scores)
    for index, (half, image, labels) in enumerate(read_pairs(root, split)):
        features = extract(encoder, image, size)
        valid_mask = to_grid(torch.from_numpy(labels != IGNORE).float(), features.frame) * coverage(features.frame)
        for case in cases_of(labels, np.random.default_rng((seed, index))):
            truth = to_grid(torch.from_numpy(case.truth).float(), features.frame) * coverage(features.frame)
            for name, method in METHODS.items():
                start = time.perf_counter()
                found = method(features, case)
                entry = scores[f"{half} | {case.kind} | {name}"]
                entry.seconds.append(time.perf_counter() - start)
                iou, soft = compare(found, truth, valid_mask)
                entry.iou.append(iou)
                entry.soft.append(soft)
    return scores


def table(title: str, rows: dict[str, dict[str, float]]) -> str:
    """One line per half and prompt: iou / soft of each method, and kshot's seconds."""
    lines = [title, f"{'half | prompt':36}" + "".join(f"{name:>15}" for name in METHODS) + "    s/prompt"]
    for key in dict.fromkeys(key.rpartition(" | ")[0] for key in sorted(rows)):
        cells = [rows[f"{key} | {name}"] for name in METHODS]
        shown = "".join(f"{100 * cell['iou']:8.1f}/{100 * cell['soft']:5.1f} " for cell in cells)
        lines.append(f"{key:36}{shown}{cells[0]['seconds']:12.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, "root", "seed", "out", size=448)
    parser.add_argument("--split", default="val")
    parser.add_argument(
        "--backbone",
        action="append",
        help="name or folder, with @10,12 for layers; may be repeated (default: ViT-Tiny's folder @10,12, and classic)",
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {}
    for backbone in options.backbone or [f"{VIT_TINY}@10,12", "classic"]:
        name, _, layers = backbone.partition("@")
        chosen = tuple(int(layer) for layer in layers.split(",") if layer)
        scores = measure(options.root, options.split, name, chosen, options.size, options.seed)
        rows = {key: entry.row(key.endswith("kshot")) for key, entry in scores.items()}
        title = f"{Path(name).name}{'@' * bool(layers)}{layers}, VOC development {options.split}, size {options.size}"
        print(table(f"\n{title}: grid IoU / soft IoU, %", rows), flush=True)
        results[title] = rows
    settings = {"split": options.split, "size": options.size, "seed": options.seed, "threads": options.threads}
    write(options.out, {"settings": settings, "results": results})


if __name__ == "__main__":
    main()
