"""Kill a folder run at random moments, resume it, and compare its files with those of a run that nobody disturbed.

    python -m benchmarks.reliability.kills --kills 30

Each run is a child that was forked from a process with everything imported, so that the kills fall into the work and
not into the imports. A run that ends before all kills are spent is compared, and a new one begins.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks.discs import disc
from benchmarks.settings import arguments
from kshot.annotations.model import Export
from kshot.batch import label_folder
from kshot.segmenter import Segmenter
from kshot.types import Shot

_SIZE_HW = (64, 80)
FORMATS = ("png", "overlay", "scores", "coco", "labelme", "yolo")


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _draw_images(root / "images", options.images)
        inputs = contents(root / "images")
        started = time.perf_counter()
        os.waitpid(_start(root / "images", root / "whole", options.workers), 0)
        length, whole = time.perf_counter() - started, contents(root / "whole")
        if len(whole) < 4 * options.images:
            raise SystemExit("the undisturbed run failed")
        rng = random.Random(options.seed)
        kills = finished = 0
        while kills < options.kills:
            kills += _until_done(root, rng, length, options.kills - kills, options.workers)
            _compare(contents(root / "out"), whole)
            finished += 1
            shutil.rmtree(root / "out")
        _compare(contents(root / "images"), inputs)
    print(json.dumps({"kills": kills, "runs_finished": finished, "files": len(whole), "identical": True}))


def _until_done(root: Path, rng: random.Random, length: float, kills: int, workers: int) -> int:
    """Start a run again and again until it ends by itself; returns how often it was killed, at most `kills` times."""
    for spent in range(kills + 1):
        child = _start(root / "images", root / "out", workers)
        if spent < kills:
            time.sleep(rng.uniform(0, 0.6) * length)
            os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            return spent
    raise SystemExit("a run that was not killed failed")


def _start(images: Path, out: Path, workers: int) -> int:
    """The process id of a child that labels the folder."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        segmenter = Segmenter(backbone="classic", size=64, device="cpu")
        task = segmenter.fit([Shot(*disc(seed, _SIZE_HW), label="disc") for seed in (1, 2)])
        export = Export(instances="components")
        label_folder(segmenter, task, images, out, formats=FORMATS, export=export, resume=True, workers=workers)
        code = 0
    finally:
        os._exit(code)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the one that says how long things took."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "timing.jsonl"}


def _compare(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        raise SystemExit(f"not the same: {', '.join(wrong)}")


def _draw_images(folder: Path, count: int) -> None:
    folder.mkdir()
    for index in range(count):
        Image.fromarray(disc(100 + index, _SIZE_HW)[0]).save(folder / f"{index:04}.png")
    (folder / "broken.jpg").write_bytes(b"no image")


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "seed", "workers")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=24)
    return parser.parse_args()


if __name__ == "__main__":
    main()
