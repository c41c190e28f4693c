"""A folder run on a Ray cluster of this machine beside the local engine: time against images and workers.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.cluster --photos FOLDER --out benchmarks/results/cluster_tiny.json

The cluster is started once, and each run starts its actors, as it would on a cluster that is there already. A line
through the times, `fixed` + `per image`, is given for each engine and number of workers with two or more counts.
With one thread (OMP_NUM_THREADS=1) the local engine does in one process what an actor does. What an image takes after
the first results, beyond its inference, is the overhead of either, and does not depend on other work on the machine
as much as the difference of two runs does. The images are photographs of a folder, or drawn ones of 320 x 240.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.discs import disc
from benchmarks.settings import arguments, facts, write
from kshot.batch import label_folder, ray_engine
from kshot.batch.run import Engine, on_this_machine
from kshot.methods.base import Task
from kshot.segmenter import Segmenter
from kshot.types import Shot

_SIZE_HW = (240, 320)
_BURST_S = 0.05
ENGINES: dict[str, Engine] = {"local": on_this_machine, "ray": ray_engine.on_ray}


def main() -> None:
    options = _options()
    segmenter = Segmenter(backbone=options.backbone, size=options.size, device="cpu")
    task = segmenter.fit([Shot(*disc(seed, _SIZE_HW), label="disc") for seed in (1, 2)])
    report: dict[str, Any] = {"facts": facts(), "cores": os.cpu_count(), "backbone": options.backbone, "runs": []}
    started = time.perf_counter()
    ray = ray_engine.load()
    ray_engine._connect(ray, max(options.workers))
    report["start_of_cluster_s"] = round(time.perf_counter() - started, 1)
    with tempfile.TemporaryDirectory() as folder:
        for count in options.images:
            images = _make_images(Path(folder) / f"images{count}", count, options.photos)
            for name in options.engines:
                for workers in options.workers:
                    out = Path(folder) / f"{name}-{count}-{workers}"
                    report["runs"].append(_run(segmenter, task, images, out, name, workers))
                    print(report["runs"][-1], flush=True)
    ray.shutdown()
    report["lines"] = [
        _line([run for run in report["runs"] if (run["engine"], run["workers"]) == (name, workers)])
        for name in options.engines
        for workers in options.workers
    ]
    write(options.out, report)


def _run(segmenter: Segmenter, task: Task, images: Path, out: Path, name: str, workers: int) -> dict[str, Any]:
    times: list[float] = []
    done = label_folder(
        segmenter,
        task,
        images,
        out,
        engine=ENGINES[name],
        workers=workers,
        progress=lambda *_: times.append(time.perf_counter()),
    )
    first = sum(each - times[0] < _BURST_S for each in times)  # an actor's results come by batches
    seconds = [json.loads(line)["infer"] for line in (out / "timing.jsonl").read_text().splitlines()]
    return {
        "engine": name,
        "workers": workers,
        "images": done.processed,
        "seconds": round(done.seconds, 1),
        "ms_per_image_after_the_first": round(1000 * (times[-1] - times[0]) / (len(times) - first), 1),
        "ms_of_inference": round(1000 * sum(seconds) / len(seconds), 1),
        "load": round(os.getloadavg()[0], 1),
    }


def _line(runs: list[dict[str, Any]]) -> dict[str, Any]:
    counts, seconds = [run["images"] for run in runs], [run["seconds"] for run in runs]
    slope, fixed = np.polyfit(counts, seconds, 1) if len(runs) > 1 else (float("nan"), float("nan"))
    return {
        "engine": runs[0]["engine"],
        "workers": runs[0]["workers"],
        "fixed_s": round(float(fixed), 1),
        "ms_per_image": round(1000 * float(slope), 1),
    }


def _make_images(folder: Path, count: int, photos: Path | None) -> Path:
    folder.mkdir()
    originals = sorted(photos.glob("*.jpg")) if photos else _drawn(folder.with_name(f"{folder.name}-drawn"))
    for index in range(count):
        (folder / f"{index:06}.jpg").symlink_to(originals[index % len(originals)].resolve())
    return folder


def _drawn(folder: Path) -> list[Path]:
    folder.mkdir()
    for index in range(50):
        Image.fromarray(disc(100 + index, _SIZE_HW)[0]).save(folder / f"{index:06}.jpg", quality=90)
    return sorted(folder.iterdir())


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "size", "out", backbone="tiny")
    parser.add_argument("--images", type=int, nargs="+", default=[40, 200])
    parser.add_argument("--photos", type=Path, help="Folder of JPEGs, which are taken again where there are fewer.")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    return parser.parse_args()


if __name__ == "__main__":
    main()
