#!/usr/bin/env python3
"""Write docs/images/page.webp: the page of `kshot serve` at work on the demo's coins, as the README shows it.

    python scripts/page_animation.py

A real server, Chromium, and the demo's photographs; nothing is drawn afterwards.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.chromium import executable  # noqa: E402

from kshot.demo.photos import read_photo  # noqa: E402

TARGET = ROOT / "docs" / "images" / "page.webp"
SIZE = (1200, 750)
_PARTS = {"a": (0, 0, 192, 152), "b": (192, 0, 384, 152), "c": (0, 152, 192, 303), "d": (192, 152, 384, 303)}
_MOST_BYTES = 3_000_000


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        folder.mkdir()
        for name, (x0, y0, x1, y1) in _PARTS.items():
            image = Image.fromarray(read_photo("coins")[y0:y1, x0:x1])
            image.resize((3 * image.width, 3 * image.height), Image.Resampling.LANCZOS).save(folder / f"{name}.png")
        for name in ("chelsea", "rocket"):
            Image.fromarray(read_photo(name)).save(folder / f"{name}.png")
        command = [sys.executable, "-m", "kshot", "serve", str(folder), "-o", f"{place}/out", "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            told = server.stdout.readline() if server.stdout else ""
            frames = list(_frames(re.findall(r"http://\S+", told)[0]))
        finally:
            server.terminate()
            server.wait()
    pictures = [frame for frame, _ in frames]
    times = [time for _, time in frames]
    pictures[0].save(TARGET, save_all=True, append_images=pictures[1:], duration=times, loop=0, quality=72, method=6)
    size = TARGET.stat().st_size
    print(f"{TARGET}: {len(frames)} pictures, {size} bytes")
    if size > _MOST_BYTES:
        sys.exit(f"more than {_MOST_BYTES} bytes")


def _frames(address: str) -> Iterator[tuple[Image.Image, int]]:
    """Pictures, and how long each is shown, milliseconds."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.wait_for_timeout(1500)

        def shot(milliseconds: int) -> tuple[Image.Image, int]:
            return Image.open(BytesIO(page.screenshot())).convert("RGB"), milliseconds

        yield shot(1200)
        for letters in ("co", "coin"):
            page.fill("#first-name", letters)
            yield shot(300)
        page.press("#first-name", "Enter")
        page.click('.tile[aria-label^="a.png"]')
        page.wait_for_timeout(1500)
        yield shot(900)
        place: Any = page.locator("#canvas").bounding_box()
        scale = min((place["width"] - 24) / 576, (place["height"] - 24) / 456, 8)
        left, top = place["x"] + (place["width"] - scale * 576) / 2, place["y"] + (place["height"] - scale * 456) / 2
        for x, y in [(46, 56), (100, 58), (158, 52), (44, 124), (103, 125), (155, 126)]:
            page.mouse.click(left + scale * 3 * x, top + scale * 3 * y)
            page.wait_for_timeout(900)
            yield shot(450)
        for _ in range(60):
            page.wait_for_timeout(700)
            status = page.evaluate("fetch('/api/status').then((answer) => answer.json())")
            if status["idle"]:
                break
        page.wait_for_timeout(1500)
        yield shot(1800)
        page.keyboard.press("Enter")
        page.wait_for_timeout(2500)
        yield shot(1000)
        page.keyboard.press("x")
        page.wait_for_timeout(2500)
        yield shot(1000)
        page.click("#open-export")
        page.wait_for_timeout(800)
        yield shot(1800)
        browser.close()


if __name__ == "__main__":
    main()
