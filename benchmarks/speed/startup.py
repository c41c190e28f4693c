"""What `kshot label` on one image takes from the shell, by phase, and which libraries it imports.

    python -m benchmarks.speed.startup --out benchmarks/results/startup.json

Whole commands are timed in processes of their own, the first of which warms the disk and the engine's cache; phases in
one more process. Seconds are the clock's, with those of the processor beside them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.discs import disc
from benchmarks.settings import arguments, facts, write

_PHASES = """
import json, time
from pathlib import Path
started, cpu, phases = time.perf_counter(), time.process_time(), {}
def lap(name):
    global started, cpu
    phases[name] = [round(time.perf_counter() - started, 3), round(time.process_time() - cpu, 3)]
    started, cpu = time.perf_counter(), time.process_time()
import torch; lap("import torch")
import kshot; from kshot.segmenter import Segmenter; from kshot.batch import label_folder; lap("import kshot")
import sys
folder, engine = sys.argv[1:3]
from kshot.backbones.base import load_backbone
backbone = load_backbone("tiny", device="cpu"); lap("load the backbone")
from kshot.features import accelerate
backbone = accelerate(backbone, engine); lap("set up the engine")
segmenter = Segmenter(backbone=backbone); lap("rest of the Segmenter")
supports = kshot.SupportSet.from_folder(folder + "/support"); lap("read the supports")
task = segmenter.fit(supports); lap("fit, with the engine's first image")
label_folder(segmenter, task, folder + "/images", folder + "/out", overwrite=True); lap("label one image")
from kshot.report import write_report
write_report(Path(folder, "out")); lap("report")
libraries = {"transformers", "openvino", "skimage", "scipy", "pandas", "matplotlib", "jinja2", "pycocotools"}
print(json.dumps([phases, sorted({name.partition(".")[0] for name in sys.modules} & libraries)]))
"""


def main() -> None:
    options = _options()
    report: dict[str, Any] = {"facts": facts(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = _case(Path(name))
        code = [sys.executable, "-c", _PHASES, str(folder), options.engine]
        for _ in range(2):  # the first warms up
            done = subprocess.run(code, check=True, capture_output=True, text=True)
        report["phases_s_and_cpu_s"], report["imported"] = json.loads(done.stdout.splitlines()[-1])
        command = [sys.executable, "-m", "kshot", "label", "support", "images", "-o", "out", "--overwrite"]
        command += ["--inference-engine", options.engine]
        times = [_timed(command, folder) for _ in range(options.turns + 1)][1:]
    report["command_s"] = round(statistics.median(wall for wall, _ in times), 2)
    report["command_least_s"] = round(min(wall for wall, _ in times), 2)
    report["command_cpu_s"] = round(statistics.median(cpu for _, cpu in times), 2)
    print(json.dumps(report, indent=1))
    write(options.out, report)


def _timed(command: list[str], folder: Path) -> tuple[float, float]:
    before, started = _children(), time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    return time.perf_counter() - started, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _case(folder: Path) -> Path:
    """One support and one image."""
    (folder / "support" / "disc").mkdir(parents=True)
    (folder / "images").mkdir()
    image, mask = disc(1, (375, 500))
    Image.fromarray(image).save(folder / "support" / "disc" / "a.jpg")
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "support" / "disc" / "a.png")
    Image.fromarray(disc(2, (375, 500))[0]).save(folder / "images" / "b.jpg")
    return folder


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "out")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--turns", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
