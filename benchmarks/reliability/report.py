"""Whether the report of a long run opens and answers: its size, and how long it blocks in headless Chromium.

    python -m benchmarks.reliability.report --images 1000 10000 100000 --out benchmarks/results/report.json

Overlays and images are real files (links to a few drawn ones, so that a hundred thousand take no room); the records
are as `kshot label` writes them, with drawn figures in them. Times are from the input to the frame that shows its
effect, on the machine that the results name.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.chromium import opened
from benchmarks.settings import arguments, facts, write
from kshot.report import write_report

CLASSES = ("cat", "dog", "bird")
_DIFFERENT = 40
# Runs a step in the page and gives the milliseconds until the second frame after it, when its effect is on the screen.
_TIMED = """(async () => {
  const change = (id, value) => {
    document.getElementById(id).value = value;
    document.getElementById(id).dispatchEvent(new Event('change'));
  };
  const started = performance.now();
  %s;
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - started;
})()"""
STEPS = {
    "sort_by_name": "change('sort', 'name')",
    "sort_by_area": "change('sort', 'area')",
    "sort_by_uncertainty": "change('sort', 'uncertainty')",
    "reverse": "document.getElementById('reverse').click()",
    "reverse_back": "document.getElementById('reverse').click()",
    "filter_class": "change('class', '1')",
    "filter_failed": "change('class', '-1'); change('status', 'failed')",
    "no_filter": "change('status', '')",
    "side_by_side": "document.querySelector('.views button[value=both]').click()",
    "next_page": "document.getElementById('next').click()",
}


def main() -> None:
    options = _options()
    report: dict[str, Any] = {"facts": facts(), "runs": []}
    for count in options.images:
        with tempfile.TemporaryDirectory() as folder:
            out = make_run(Path(folder), count)
            report["runs"].append({"images": count, **_measure(out, options.screenshots)})
            print(json.dumps(report["runs"][-1]), flush=True)
    write(options.out, report)


def _measure(out: Path, screenshots: Path | None) -> dict[str, Any]:
    started = time.perf_counter()
    page = write_report(out)
    written = time.perf_counter() - started
    found: dict[str, Any] = {"write_s": round(written, 2), "page_mb": round(page.stat().st_size / 1e6, 1)}
    found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with opened() as tab:
        tab.go(page.resolve().as_uri())
        timing = "performance.getEntriesByType('navigation')[0]"
        found["load_ms"] = round(tab.run(f"{timing}.loadEventEnd - {timing}.startTime"))
        found["heap_mb"] = round(tab.run("performance.memory.usedJSHeapSize") / 1e6)
        found["nodes"] = tab.run("document.getElementsByTagName('*').length")
        for name, step in STEPS.items():
            found[f"{name}_ms"] = round(tab.run(_TIMED % step))
            if screenshots:
                screenshots.mkdir(parents=True, exist_ok=True)
                tab.screenshot(screenshots / f"{name}.png")
    return found


def make_run(root: Path, count: int) -> Path:
    """An output folder of a run over `count` images, two of a hundred failed, one of ten empty."""
    out, rng = root / "out", np.random.default_rng(0)
    for index in range(_DIFFERENT):
        _draw(root / "drawn" / f"{index}.jpg", rng)
    with_files = {"images": root / "images", "overlays": out / "overlays"}
    (out / "masks").mkdir(parents=True)
    with (out / "manifest.jsonl").open("w") as manifest:
        for index in range(count):
            name = f"camera_{index % 7}/2026-03/frame_{index:06}"
            record = _record(name, index, rng)
            manifest.write(json.dumps(record) + "\n")
            for folder in with_files.values() if record["status"] != "failed" else [with_files["images"]]:
                path = folder / f"{name}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(root / "drawn" / f"{index % _DIFFERENT}.jpg", path)
    settings = {"kshot": "0", "classes": CLASSES, "images": str(root / "images"), "command": "kshot label ..."}
    (out / "settings.json").write_text(json.dumps(settings))
    return out


def _record(name: str, index: int, rng: np.random.Generator) -> dict[str, Any]:
    if index % 50 == 7:
        return {"input": f"{name}.jpg", "status": "failed", "reason": f"{name}.jpg: damaged or cut off; save it again"}
    empty = index % 10 == 3
    shown = rng.random(len(CLASSES)) < (0 if empty else 0.6)
    classes = {
        label: {
            "present": round(float(rng.random()), 4),
            "pixels": int(shown[k] * rng.integers(1, 80_000)),
            "objects": int(shown[k] * rng.integers(1, 6)),
            "score": round(float(shown[k] * rng.random()), 4),
        }
        for k, label in enumerate(CLASSES)
    }
    return {
        "input": f"{name}.jpg",
        "status": "done" if shown.any() else "empty",
        "sha256": rng.bytes(32).hex(),
        "size_hw": [375, 500],
        "uncertainty": round(float(rng.beta(2, 6)), 4),
        "mask": f"masks/{name}.png",
        "outputs": {"png": f"masks/{name}.png", "overlay": f"overlays/{name}.jpg"},
        "classes": classes,
    }


def _draw(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(exist_ok=True)
    noise = rng.normal(0, 8, (375, 500, 3)) + rng.integers(60, 200, 3)
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    left, top = (int(v) for v in rng.integers(20, 250, 2))
    ImageDraw.Draw(image).ellipse((left, top, left + 160, top + 110), fill=(200, 60, 60), outline="white", width=3)
    image.save(path, quality=85)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "out")
    parser.add_argument("--images", type=int, nargs="+", default=[100_000])
    parser.add_argument("--screenshots", type=Path, help="Folder for a image of the screen after each step.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
