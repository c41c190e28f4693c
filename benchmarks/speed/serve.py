"""How fast the page of `kshot serve` answers, end to end from a browser.

    python -m benchmarks.speed.serve --out benchmarks/results/serve.json

A server of its own process with the default backbone and method, on photographs of VOC; headless Chromium clicks and
paints on one image whose features are cached, and takes the time from the release of the pointer until the new mask is
drawn (the page's own measure `kshot-stroke`). Then the time until the tiles in view show the newest task's masks, an
image, from the fit to the last of them. Two cores are enough; nothing else should run.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chromium import executable
from benchmarks.settings import arguments, facts, write

_PATIENCE = 600.0


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        for path in sorted((options.root / "JPEGImages").glob("*.jpg"))[: options.images]:
            shutil.copy(path, folder)
        with served(folder, Path(place) / "out", options.cache or Path(place) / "cache") as address:
            report = _measured(address, options.strokes)
    load = round(os.getloadavg()[0], 1)
    report = {"facts": facts(), "load": load, "images": options.images, "strokes": options.strokes} | report
    print(report)
    write(options.out, report)


@contextmanager
def served(images: Path, out: Path, cache: Path) -> Iterator[str]:
    """The address of a server in a process of its own, which ends with the context."""
    command = [
        sys.executable,
        "-m",
        "kshot",
        "serve",
        str(images),
        "-o",
        str(out),
        "--port",
        "0",
        "--cache",
        str(cache),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        told = server.stdout.readline() if server.stdout else ""
        yield re.findall(r"http://\S+", told)[0]
    finally:
        server.terminate()
        server.wait()


def _measured(address: str, strokes: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        _settled(page)  # all images are encoded
        page.fill("#first-name", "thing")
        page.press("#first-name", "Enter")
        page.wait_for_selector("#classes li")
        place: Any = page.locator("#canvas").bounding_box()
        middle = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        page.mouse.click(*middle)
        page.wait_for_function("() => performance.getEntriesByName('kshot-stroke').length")
        _settled(page)
        page.evaluate("performance.clearMeasures()")
        for step in range(strokes):
            x, y = middle[0] + 12 * (step % 9 - 4), middle[1] + 12 * (step // 9 % 5 - 2)
            page.keyboard.press("v" if step % 2 else "b")
            page.mouse.move(x, y)
            page.mouse.down()
            if step % 2 == 0:
                page.mouse.move(x + 20, y + 8, steps=5)
            page.mouse.up()
            page.wait_for_function("step => performance.getEntriesByName('kshot-stroke').length > step", arg=step)
            page.wait_for_timeout(150)
        times = page.evaluate("performance.getEntriesByName('kshot-stroke').map((each) => each.duration)")
        _settled(page)
        page.wait_for_timeout(2000)
        fits = page.evaluate("performance.getEntriesByName('kshot-view').map((each) => each.detail)")
        browser.close()
    following = [one["milliseconds"] / one["images"] for one in fits if one["images"] > 4]
    return {
        "stroke_ms_median": round(statistics.median(times), 1),
        "stroke_ms_90": round(statistics.quantiles(times, n=10)[-1], 1),
        "thumbnail_ms_an_image_median": round(statistics.median(following), 1) if following else None,
    }


def _settled(page: Any) -> dict[str, Any]:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        status: dict[str, Any] = page.evaluate("fetch('/api/status').then((answer) => answer.json())")
        if status["idle"]:
            return status
        page.wait_for_timeout(200)
    raise TimeoutError(f"not through after {_PATIENCE} s: {status}")


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "root", "cache", "out")
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--strokes", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    main()
