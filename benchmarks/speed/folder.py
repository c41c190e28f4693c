"""A folder run against the inference alone, and its time against the number of images and workers.

    python -m benchmarks.speed.folder --images 100 1000 --workers 0 1 2 --out benchmarks/results/folder.json

The inference alone is `predict` on images that are decoded already, one after another, and nothing is written; a run on
several cores infers several at once and may be faster. They are timed by turns, so that a busy machine slows both; the
ratio counts, not the seconds.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.settings import arguments, facts, write
from benchmarks.speed.predict import cat_shots
from kshot.batch import label_folder
from kshot.features import precision_of
from kshot.io.images import read_image
from kshot.methods.base import Task
from kshot.segmenter import Segmenter


def main() -> None:
    options = _options()
    segmenter = Segmenter(backbone=options.backbone, device="cpu")
    task = segmenter.fit(cat_shots(options.root, 1))
    sources = sorted((options.root / "JPEGImages").glob("*.jpg"))[: options.different]
    report: dict[str, Any] = {"facts": facts(), "formats": options.formats, "load": os.getloadavg()[0]}
    report |= {"engine": precision_of(segmenter.backbone), "rate": [], "growth": []}
    with tempfile.TemporaryDirectory() as folder:
        for workers in options.workers:
            report["rate"].append(_rate(segmenter, task, sources, Path(folder), workers, options))
            print(report["rate"][-1], flush=True)
        for count in options.images:
            for workers in options.workers:
                report["growth"].append(_growth(segmenter, task, sources, Path(folder), count, workers, options))
                print(report["growth"][-1], flush=True)
    write(options.out, report)


def _rate(
    segmenter: Segmenter, task: Task, sources: list[Path], folder: Path, workers: int, options: argparse.Namespace
) -> dict[str, float]:
    """Images a second of inference alone and of whole runs, by turns."""
    decoded = [read_image(path) for path in sources]
    images = _fill(folder / "rate", sources, len(sources))
    alone, whole = [], []
    for turn in range(options.turns + 1):
        started = time.perf_counter()
        for image in decoded:
            segmenter.predict(task, image)
        middle = time.perf_counter()
        label_folder(segmenter, task, images, folder / "out", formats=options.formats, overwrite=True, workers=workers)
        if turn:  # the first warms up
            alone.append(middle - started)
            whole.append(time.perf_counter() - middle)
    shutil.rmtree(images)
    found = {"inference": len(sources) / statistics.median(alone), "run": len(sources) / statistics.median(whole)}
    ratio = statistics.median(a / w for a, w in zip(alone, whole, strict=True))
    return {"workers": workers, **{f"{name}_per_s": round(v, 2) for name, v in found.items()}, "ratio": round(ratio, 3)}


def _growth(
    segmenter: Segmenter,
    task: Task,
    sources: list[Path],
    folder: Path,
    count: int,
    workers: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    images, out = _fill(folder / "many", sources, count), folder / "grown"
    done = label_folder(segmenter, task, images, out, formats=options.formats, workers=workers)
    shutil.rmtree(images)
    shutil.rmtree(out)
    per_image = 1000 * done.seconds / count
    return {"images": count, "workers": workers, "ms_per_image": round(per_image, 1)}


def _fill(folder: Path, sources: list[Path], count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        shutil.copy(sources[index % len(sources)], folder / f"{index:06}.jpg")
    return folder


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "root", "out", backbone="tiny")
    parser.add_argument("--formats", nargs="+", default=["png", "overlay"])
    parser.add_argument("--images", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--different", type=int, default=25, help="Images that differ; the rest are copies.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args()


if __name__ == "__main__":
    main()
