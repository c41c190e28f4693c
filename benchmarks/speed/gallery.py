"""A folder of very many images on the page of `kshot serve`: how soon it is there, how it scrolls, what it takes.

    python -m benchmarks.speed.gallery --images 100000 --out benchmarks/results/gallery.json

The files are links to a few photographs, each a JPEG of its own to the server. A headless Chromium opens the page and
scrolls through the gallery for some seconds, a wheel's step at a time, and then jumps to places far apart; the times
between frames are the browser's own (`requestAnimationFrame`). The server goes on encoding meanwhile, as it would.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.chromium import executable
from benchmarks.settings import arguments, facts, write
from benchmarks.speed.serve import served

_FRAMES = """() => { const times = window.frames_ = []; let last = performance.now();
    const next = (now) => { times.push(now - last); last = now; requestAnimationFrame(next); };
    requestAnimationFrame(next); }"""
_SHOWN = """() => [...document.querySelectorAll('.tile img')].filter((each) => each.complete && each.naturalWidth)
    .length >= 8"""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        sources = sorted((options.root / "JPEGImages").glob("*.jpg"))[:20]
        copies = [Path(place) / path.name for path in sources]
        for source, copy in zip(sources, copies, strict=True):
            copy.write_bytes(source.read_bytes())
        for number in range(options.images):
            os.link(copies[number % len(copies)], folder / f"{number:06}.jpg")
        begun = time.perf_counter()
        with served(folder, Path(place) / "out", options.cache or Path(place) / "cache") as address:
            report = {"seconds_to_server": round(time.perf_counter() - begun, 1)} | _measured(address)
    load = round(os.getloadavg()[0], 1)
    report = {"facts": facts(), "load": load, "images": options.images} | report
    print(report)
    write(options.out, report)


def _measured(address: str) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        begun = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        ready = time.perf_counter() - begun
        page.fill("#first-name", "thing")
        page.press("#first-name", "Enter")
        page.mouse.move(1180, 500)
        page.evaluate(_FRAMES)
        for _ in range(120):
            page.mouse.wheel(0, 240)
            page.wait_for_timeout(16)
        frames = page.evaluate("frames_.slice(5)")
        jumps = []
        for step in range(1, 9):
            begun = time.perf_counter()
            page.evaluate("at => { const box = gallery; box.scrollTop = at * box.scrollHeight; }", step / 9)
            page.wait_for_timeout(50)
            page.wait_for_function(_SHOWN, timeout=60_000)
            jumps.append(1000 * (time.perf_counter() - begun))
        tiles = page.evaluate("document.querySelectorAll('.tile').length")
        heap = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize : 0")
        browser.close()
    return {
        "seconds_to_page": round(ready, 2),
        "frame_ms_median": round(statistics.median(frames), 1),
        "frame_ms_95": round(statistics.quantiles(frames, n=20)[-1], 1),
        "jump_ms_median": round(statistics.median(jumps)),
        "tiles_in_the_document": tiles,
        "browser_heap_mb": round(heap / 1e6, 1),
    }


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "root", "cache", "out")
    parser.add_argument("--images", type=int, default=100_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
