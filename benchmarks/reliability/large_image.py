"""Label a GeoTIFF that is larger than the memory a run may take, and say how much memory it took.

    python -m benchmarks.reliability.large_image --side 20000 --tile 1024

The picture is noise with discs in it, made strip by strip. The run is a process of its own, `kshot predict` with masks,
a preview and a GeoTIFF; its peak is what the kernel counted for it (`ru_maxrss`), everything included that a process of
PyTorch takes.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio

from kshot import __version__
from kshot.batch import read_manifest
from kshot.formats.writing import write_text
from kshot.segmenter import Segmenter
from kshot.types import Shot

_STRIP, _RADIUS, _APART = 512, 150, 1000


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.where) as folder:
        root = Path(folder)
        picture, marked = _strip(0, 640, 640)
        task = Segmenter(backbone=options.backbone, method=options.method, device="cpu").fit(
            [Shot(picture, mask=marked, label="disc")]
        )
        task.save(root / "disc.kshot")
        truth = _make(root / "large.tif", options.side)
        started = time.perf_counter()
        _label(root, options.tile)
        seconds = time.perf_counter() - started
        (record,) = read_manifest(root / "out")
        if record["status"] != "done":
            raise SystemExit(record)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        iou = _iou(root / "out" / "geotiff" / "large.tif", options.side)
        sizes = {name: (root / "out" / path).stat().st_size for name, path in record["outputs"].items()}
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
        "regions_found": record["classes"]["disc"]["regions"],
        "iou": round(iou, 4),
        "output_bytes": sizes,
    }
    text = json.dumps(facts, indent=2)
    print(text)
    if options.keep:
        write_text(options.keep, text + "\n")


def _label(root: Path, tile: int) -> None:
    command = [sys.executable, "-m", "kshot", "predict", "disc.kshot", "large.tif", "-o", "out", "--device", "cpu"]
    command += ["--tile", str(tile), "--format", "png,overlay,geotiff"]
    subprocess.run(command, cwd=root, check=True)


def _strip(top: int, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the picture (r, w, 3), and whether they show a disc (r, w)."""
    marked = _marked(top, rows, width)
    noise = np.random.default_rng(top).normal(0, 12, (rows, 640, 3)).astype(np.float32)
    picture = np.where(marked[..., None], (200, 40, 40), (40, 160, 60)).astype(np.float32)
    picture += np.tile(noise, (1, -(-width // 640), 1))[:, :width]
    return picture.clip(0, 255).astype(np.uint8), marked


def _marked(top: int, rows: int, width: int) -> np.ndarray:
    """Whether rows of the picture show a disc, (r, w)."""
    down = (np.arange(top, top + rows) % _APART - _APART // 2)[:, None]
    across = (np.arange(width) % _APART - _APART // 2)[None]
    marked: np.ndarray = down**2 + across**2 < _RADIUS**2
    return marked


def _make(path: Path, side: int) -> int:
    """Write the picture; returns how many discs it shows."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--backbone", default="classic")
    parser.add_argument("--method", default="density")
    parser.add_argument("--where", type=Path, help="folder for the picture, which takes about 1 GB")
    parser.add_argument("--keep", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
