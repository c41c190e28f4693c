"""Label a GeoTIFF that is larger than the memory a run may take, and say how much memory it took.

    python -m benchmarks.reliability.large_image --side 20000 --tile 1024 --formats coco,labelme

The image is noise with discs in it, made strip by strip. The run is a process of its own, `kshot predict` with masks,
a preview and a GeoTIFF; its peak is what the kernel counted for it (`ru_maxrss`), everything included that a process of
PyTorch takes. What is made at the end of a run is written from its masks once more for each of `--formats`, by `kshot
convert` in a process of its own (`labelme:polygons` with `--polygons --tolerance 1`).
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio

from benchmarks.settings import arguments
from kshot import __version__
from kshot.batch import read_manifest
from kshot.io.atomic import write_text
from kshot.segmenter import Segmenter
from kshot.types import Shot

_STRIP, _RADIUS, _APART = 512, 150, 1000


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.where) as folder:
        root = Path(folder)
        image, marked = _strip(0, 640, 640)
        task = Segmenter(backbone=options.backbone, method=options.method, device="cpu").fit(
            [Shot(image, mask=marked, label="disc")]
        )
        task.save(root / "disc.kshot")
        truth = _make(root / "large.tif", options.side)
        command = ["predict", "disc.kshot", "large.tif", "-o", "out", "--device", "cpu", "--tile", str(options.tile)]
        seconds, used = _run(root, [*command, "--format", "png,overlay,geotiff"])
        (record,) = read_manifest(root / "out")
        if record["status"] != "done":
            raise SystemExit(record)
        iou = _iou(root / "out" / "geotiff" / "large.tif", options.side)
        sizes = {name: (root / "out" / path).stat().st_size for name, path in record["outputs"].items()}
        written = {name: _written(root, name) for name in options.formats.split(",") if name}
    facts = {
        "kshot": __version__,
        "side": options.side,
        "tile": options.tile,
        "backbone": Path(options.backbone).name,
        "method": options.method,
        "cpu": f"{platform.machine()}, one thread",
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "megapixels_per_cpu_second": round(options.side**2 / 1e6 / (used.ru_utime + used.ru_stime), 3),
        "peak_rss_mib": round(used.ru_maxrss / 1024),
        "discs": truth,
        "regions_found": record["classes"]["disc"]["objects"],
        "iou": round(iou, 4),
        "output_bytes": sizes,
        "formats_made_at_the_end": written,
    }
    text = json.dumps(facts, indent=2)
    print(text)
    if options.keep:
        write_text(options.keep, text + "\n")


def _written(root: Path, name: str) -> dict[str, float]:
    """What it takes to write the run's labels in a format."""
    plain, _, polygons = name.partition(":")
    command = ["convert", "out", "--to", plain, "-o", f"as {name}"]
    command += ["--polygons", "--tolerance", "1"] if polygons else []
    seconds, used = _run(root, command)
    print(f"{name}: {used.ru_maxrss / 1024:.0f} MiB, {seconds:.0f} s", file=sys.stderr, flush=True)
    return {"peak_rss_mib": round(used.ru_maxrss / 1024), "cpu_seconds": round(used.ru_utime + used.ru_stime, 1)}


def _run(root: Path, arguments: Sequence[str]) -> tuple[float, resource.struct_rusage]:
    """The seconds of a `kshot` process, and what the kernel counted for it."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "kshot", *arguments], cwd=root)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"kshot {' '.join(arguments)}: exit code {process.returncode}")
    return time.perf_counter() - started, used


def _strip(top: int, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the image (r, w, 3), and whether they show a disc (r, w)."""
    marked = _marked(top, rows, width)
    noise = np.random.default_rng(top).normal(0, 12, (rows, 640, 3)).astype(np.float32)
    image = np.where(marked[..., None], (200, 40, 40), (40, 160, 60)).astype(np.float32)
    image += np.tile(noise, (1, -(-width // 640), 1))[:, :width]
    return image.clip(0, 255).astype(np.uint8), marked


def _marked(top: int, rows: int, width: int) -> np.ndarray:
    """Whether rows of the image show a disc, (r, w)."""
    down = (np.arange(top, top + rows) % _APART - _APART // 2)[:, None]
    across = (np.arange(width) % _APART - _APART // 2)[None]
    marked: np.ndarray = down**2 + across**2 < _RADIUS**2
    return marked


def _make(path: Path, side: int) -> int:
    """Write the image; returns how many discs it shows."""
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.2, 0, 500_000, 0, -0.2, 5_500_000)}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    shape = {"width": side, "height": side, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(path, "w", driver="GTiff", **place, **layout, **shape) as file:
        for top in range(0, side, _STRIP):
            rows = min(_STRIP, side - top)
            file.write(_strip(top, rows, side)[0].transpose(2, 0, 1), window=((top, top + rows), (0, side)))
    return len(range(_APART // 2 - _RADIUS, side, _APART)) ** 2


def _iou(path: Path, side: int) -> float:
    """Of the labels in a GeoTIFF with the discs."""
    both = either = 0
    with rasterio.open(path) as file:
        for top in range(0, side, _STRIP):
            rows = min(_STRIP, side - top)
            marked = _marked(top, rows, side)
            found = file.read(1, window=((top, top + rows), (0, side))) == 1
            both, either = both + int((marked & found).sum()), either + int((marked | found).sum())
    return both / either


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, backbone="classic")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--method", default="density")
    parser.add_argument("--formats", default="", help="made at the end of a run, such as coco,labelme:polygons")
    parser.add_argument("--where", type=Path, help="folder for the image, which takes about 1 GB")
    parser.add_argument("--keep", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
