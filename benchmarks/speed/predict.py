"""What `predict` costs beside the encoder's forward, and whether a folder run's memory grows.

    python -m benchmarks.speed.predict --backbone tiny --out benchmarks/results/predict_tiny.json

The forward of torch in float32, that of the engine, and the whole call are timed by turns on the same images in one
run, so that a busy machine slows all; the ratios of the medians count, not the seconds.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.settings import arguments, facts, write
from kshot.backbones.base import Backbone, load_backbone
from kshot.features import precision_of, prepare
from kshot.io.images import read_image
from kshot.io.manifest import Record
from kshot.methods.base import Task
from kshot.ops.geometry import Frame
from kshot.segmenter import Segmenter
from kshot.types import Shot

_CLASSES = {"cat": 8, "dog": 12, "horse": 13, "person": 15, "sheep": 17}


def main() -> None:
    options = _options()
    if options.child:
        _memory_child(options)
        return
    segmenter = Segmenter(backbone=options.backbone, device="cpu", size=options.size, engine=options.engine)
    reference = load_backbone(options.backbone, device="cpu")
    report: dict[str, Any] = {"facts": facts(), "images": options.images, "size": segmenter.size}
    report |= {"engine": precision_of(segmenter.backbone), "load": os.getloadavg()[0], "rows": []}
    for ways in options.ways:
        for shots in options.shots:
            labels = list(_CLASSES)[:ways]
            task = segmenter.fit([shot for label in labels for shot in shots_of(options.root, label, shots)])
            row = _ratio(segmenter, reference, task, _images(options.root)[: options.images])
            report["rows"].append({"ways": ways, "shots": shots, **row})
            print(report["rows"][-1], flush=True)
    if options.memory_images:
        report["memory"] = _memory(options)
        print(f"memory: {report['memory']}")
    write(options.out, report)


def _ratio(segmenter: Segmenter, reference: Backbone, task: Task, paths: list[Path]) -> dict[str, float]:
    """Median seconds of the forwards alone and of the whole call, by turns."""
    references, forwards, calls = [], [], []
    for path in [*paths[:5], *paths]:  # the first five warm up
        image = read_image(path)
        frame = Frame.fit((image.shape[0], image.shape[1]), segmenter.size, segmenter.backbone.spec.patch)
        pixels = prepare(image, frame, segmenter.backbone.spec)[None]
        references.append(_seconds(lambda pixels=pixels: reference.encode(pixels)))  # type: ignore[misc]
        forwards.append(_seconds(lambda pixels=pixels: segmenter.backbone.encode(pixels)))  # type: ignore[misc]
        calls.append(_seconds(lambda path=path: segmenter.predict(task, path)))  # type: ignore[misc]
    float32, forward, call = (statistics.median(seconds[5:]) for seconds in (references, forwards, calls))
    return {
        "float32_forward_s": round(float32, 4),
        "forward_s": round(forward, 4),
        "predict_s": round(call, 4),
        "ratio": round(call / forward, 3),
        "ratio_to_float32_forward": round(call / float32, 3),
    }


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _memory(options: argparse.Namespace) -> dict[str, float]:
    """Peak memory of `kshot predict`'s loop in a process of its own, after 50, 1,000, 5,000 images and after all."""
    command = [sys.executable, "-m", "benchmarks.speed.predict", "--child", "--backbone", options.backbone]
    command += ["--root", str(options.root), "--memory-images", str(options.memory_images)]
    command += ["--width", str(options.width), *(["--size", str(options.size)] if options.size else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _memory_child(options: argparse.Namespace) -> None:
    from kshot.batch import label_folder

    segmenter = Segmenter(backbone=options.backbone, size=options.size, device="cpu")
    task = segmenter.fit(cat_shots(options.root, 1))
    peaks: dict[int, float] = {}

    def note(record: Record, through: int, total: int) -> None:
        if through in {50, 1000, 5000, total}:
            peaks[through] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        source = Path(folder, "one.jpg")
        image = Image.open(_images(options.root)[0]).convert("RGB").resize((options.width, options.width * 3 // 4))
        image.save(source)
        for index in range(options.memory_images):
            shutil.copy(source, images / f"{index:05}.jpg")
        label_folder(segmenter, task, images, Path(folder, "out"), progress=note)
    print(json.dumps({f"peak_mib_after_{count}": round(peak) for count, peak in peaks.items()}))


def _images(root: Path) -> list[Path]:
    return sorted((root / "JPEGImages").glob("*.jpg"))


def cat_shots(root: Path, shots: int) -> list[Shot]:
    """`shots_of` cats."""
    return shots_of(root, "cat", shots)


def shots_of(root: Path, label: str, shots: int) -> list[Shot]:
    """The first images of VOC2012 with a class that covers at least a twentieth of them."""
    found: list[Shot] = []
    for path in sorted((root / "SegmentationClass").glob("*.png")):
        mask = np.array(Image.open(path)) == _CLASSES[label]
        if mask.mean() > 0.05:
            found.append(Shot(root / "JPEGImages" / f"{path.stem}.jpg", mask=mask, label=label))
        if len(found) == shots:
            return found
    raise SystemExit(f"{root}: {len(found)} images show enough of a {label}, and {shots} are needed")


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "root", "backbone", "size", "out")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--ways", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--memory-images", type=int, default=0)
    parser.add_argument("--width", type=int, default=500, help="Of the images whose memory is measured.")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
