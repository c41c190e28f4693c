"""What correcting k images of a folder is worth, by the order of the report (most doubtful first) or at random.

    python -m benchmarks.accuracy.review --out benchmarks/results/review.json --plot docs/images/review.png

One support of a class labels a pool of images, as many with the class as without it. k of the pool are corrected: their
true masks become shots, and the task is fitted again; then the next ones are chosen by the new figures. A corrected
image without the class is a shot that shows none of it, as in `kshot fit --add`. Three values, each the IoU of the
class over a set of images, meaned over classes and seeds: `pool`, where corrected images are right, is what the person
ends up with; `rest`, the images that nobody corrected, flatters the doubtful order, which leaves easy ones; `fresh`,
images that nobody could have corrected, tells what the shots are worth. A run that is stopped goes on where it was.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.prompts import MIN_AREA, read_pairs
from benchmarks.settings import arguments, facts, percent, write
from kshot.formats.voc import CLASSES
from kshot.methods.base import Support, Task
from kshot.metrics import IoUCounts
from kshot.ops.geometry import FeatureMap
from kshot.prompts import labelled_support
from kshot.segmenter import Segmenter
from kshot.types import IGNORE

ORDERS = ("doubtful", "random")
VALUES = ("pool", "rest", "fresh")


@dataclass(eq=False)
class LabelledImage:
    """An image, its label map, and its features once they are needed."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    segmenter: Segmenter

    @cached_property
    def features(self) -> FeatureMap:
        return self.segmenter.features(self.image)

    def shows(self, label: int) -> bool:
        """Whether any pixel is of the class."""
        return bool((self.labels == label).any())

    def truth(self, label: int) -> NDArray[np.uint8]:
        """(h, w): 1 where the class is, 255 where nobody says."""
        return np.where(self.labels == IGNORE, IGNORE, self.labels == label).astype(np.uint8)


@dataclass(frozen=True)
class ReviewCase:
    """One class and seed: a support, a pool and fresh images, by number."""

    label: int
    seed: int
    support: int
    pool: tuple[int, ...]
    fresh: tuple[int, ...]


def main() -> None:
    options = _options()
    started = time.perf_counter()
    segmenter = Segmenter(backbone=options.backbone, method=options.method, device="cpu")
    images = [LabelledImage(p, labels, segmenter) for _, p, labels in read_pairs(options.root, "val")]
    report = _begun(options)
    done = {(row["class"], row["seed"]) for row in report["rows"]}
    for case in cases(images, options.pool, options.fresh, range(options.seeds)):
        if (CLASSES[case.label - 1], case.seed) in done:
            continue
        report["rows"] += [row for order in ORDERS for row in _reviewed(segmenter, images, case, order, options)]
        report["means"] = list(_means(report["rows"], options.corrected))
        print(f"{CLASSES[case.label - 1]} {case.seed}: {time.perf_counter() - started:.0f} s", flush=True)
        write(options.out, report)
    print(table(report["means"]))
    if options.plot:
        _plot(report["means"], options.plot)


def _begun(options: argparse.Namespace) -> dict[str, Any]:
    """What the file holds of a run that was stopped."""
    chosen = {name: vars(options)[name] for name in ("method", "pool", "fresh", "corrected", "negatives")}
    if options.out.is_file():
        report: dict[str, Any] = json.loads(options.out.read_text())
        if report["settings"] == chosen:
            return report
    return {"facts": facts(), "split": "val of the development VOC", "settings": chosen, "means": [], "rows": []}


def cases(images: Sequence[LabelledImage], pool: int, fresh: int, seeds: Iterable[int]) -> Iterator[ReviewCase]:
    """A case per seed of every class that has enough images; half of each set show the class."""
    areas = {label: [int((image.labels == label).sum()) for image in images] for label in range(1, len(CLASSES) + 1)}
    for seed in seeds:
        for label, found in areas.items():
            rng = np.random.default_rng((seed, label))
            shown = rng.permutation([n for n, area in enumerate(found) if area >= MIN_AREA]).tolist()
            absent = rng.permutation([n for n, area in enumerate(found) if area == 0]).tolist()
            if len(shown) >= 1 + (pool + fresh) // 2:
                first = [*shown[1 : 1 + pool // 2], *absent[: pool // 2]]
                others = [*shown[1 + pool // 2 :][: fresh // 2], *absent[pool // 2 :][: fresh // 2]]
                yield ReviewCase(label, seed, int(shown[0]), tuple(first), tuple(others))


def _reviewed(
    segmenter: Segmenter, images: Sequence[LabelledImage], case: ReviewCase, order: str, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """A row for each number of corrected images."""
    rng = np.random.default_rng((case.seed, case.label, 1))
    rank = dict(zip(rng.permutation(case.pool).tolist(), range(len(case.pool)), strict=True))
    right: list[int] = []
    doubt: dict[int, float] = {}
    for count in options.corrected:
        rest = [n for n in case.pool if n not in right]
        if count > len(right):
            # By the figures of the task as it was before these.
            right += sorted(rest, key=lambda n: -doubt[n] if order == "doubtful" else rank[n])[: count - len(right)]
            rest = [n for n in case.pool if n not in right]
        task = _fitted(segmenter, images, case.label, [case.support, *right], options.negatives)
        found = {n: segmenter.decide(task, images[n].features, images[n].image) for n in (*rest, *case.fresh)}
        doubt = {n: found[n].uncertainty for n in rest}
        counts = {n: _counts(mask.mask, images[n].truth(case.label)) for n, mask in found.items()}
        counts |= {n: _counts(images[n].truth(case.label) % IGNORE, images[n].truth(case.label)) for n in right}
        sets = {"pool": case.pool, "rest": rest, "fresh": case.fresh}
        yield {
            "class": CLASSES[case.label - 1],
            "seed": case.seed,
            "order": order,
            "corrected": count,
            "with_class": sum(images[n].shows(case.label) for n in right),
            **{name: percent(_iou([counts[n] for n in chosen])) for name, chosen in sets.items()},
        }


def _fitted(
    segmenter: Segmenter, images: Sequence[LabelledImage], label: int, shown: Sequence[int], negatives: bool
) -> Task:
    """A task of true masks."""
    name = CLASSES[label - 1]
    supports = tuple(_support(images[n], label, name) for n in shown if negatives or images[n].shows(label))
    task: Task = segmenter.method.Task((name,), supports, segmenter.feature_spec, segmenter.settings)
    return task


def _support(image: LabelledImage, label: int, name: str) -> Support:
    truth = image.truth(label)
    return labelled_support(truth, {1: name} if image.shows(label) else {}, (name,), image.features, name)


def _counts(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> IoUCounts:
    return IoUCounts.from_masks(mask, truth, 1)


def _iou(counts: Sequence[IoUCounts]) -> float:
    return float(sum(counts, IoUCounts.zeros(1)).iou()[1])


def _means(rows: Sequence[dict[str, Any]], corrected: Sequence[int]) -> Iterator[dict[str, Any]]:
    """For each number of corrected images the means, and the difference of the orders over (class, seed) pairs."""
    for count in corrected:
        here = [row for row in rows if row["corrected"] == count]
        by_order = {order: [row for row in here if row["order"] == order] for order in ORDERS}
        mean: dict[str, Any] = {"corrected": count, "pairs": len(by_order["random"])}
        for value in VALUES:
            both = [np.array([row[value] for row in by_order[order]]) for order in ORDERS]
            mean |= {f"{value}_{order}": _rounded(v.mean()) for order, v in zip(ORDERS, both, strict=True)}
            mean[f"{value}_gain"] = [_rounded(v) for v in _interval(both[0] - both[1])]
            mean[f"{value}_wins"] = int((both[0] > both[1]).sum())
        yield mean | {f"with_class_{order}": _rounded(_share(by_order[order])) for order in ORDERS}


def _interval(gains: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean of paired differences and its 95 % bootstrap interval over the pairs."""
    drawn = np.random.default_rng(0).choice(gains, (5000, len(gains))).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return float(gains.mean()), low, high


def _share(rows: Sequence[dict[str, Any]]) -> float:
    return float(sum(row["with_class"] for row in rows) / max(1, sum(row["corrected"] for row in rows)))


def _rounded(value: float) -> float:
    return round(float(value), 2)


def table(means: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| corrected | " + " | ".join(f"{v}: doubtful / random" for v in VALUES) + " |", "|---" * 4 + "|"]
    for mean in means:
        cells = []
        for value in VALUES:
            gain, low, high = mean[f"{value}_gain"]
            difference = f" ({gain:+.1f}, {low:+.1f} to {high:+.1f})" if mean["corrected"] else ""
            cells.append(f"{mean[f'{value}_doubtful']:.1f} / {mean[f'{value}_random']:.1f}{difference}")
        lines.append(f"| {mean['corrected']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plot(means: Sequence[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    titles = {"pool": "pool, corrected ones right", "rest": "rest of the pool", "fresh": "fresh images"}
    steps = [mean["corrected"] for mean in means]
    for axes, value in zip(figure.subplots(1, 3, sharey=True), VALUES, strict=True):
        for order, colour, marker in zip(ORDERS, ("#0072b2", "#d55e00"), "os", strict=True):
            axes.plot([m[f"{value}_{order}"] for m in means], marker=marker, color=colour, label=order)
        axes.set(title=titles[value], xlabel="corrected images", xticks=range(len(steps)), xticklabels=steps)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("mIoU, %")
    figure.axes[0].legend(frameon=False, title="order")
    figure.savefig(path, dpi=110)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "root", "backbone", out=Path("review.json"))
    parser.add_argument("--method", default="auto")
    parser.add_argument("--corrected", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument("--pool", type=int, default=20, help="Images to label, half of them with the class.")
    parser.add_argument("--fresh", type=int, default=12, help="Images that are never corrected, half with the class.")
    parser.add_argument(
        "--no-negatives",
        dest="negatives",
        action="store_false",
        help="Corrected images without the class teach nothing.",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
