"""`kshot serve` as a process of its own, and Chromium to look at it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chromium import executable
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from kshot.demo.photos import read_photo

# Coins in four parts of one photograph, and two photographs without any.
COIN_IMAGE = (192, 152)
"""Width and height of a.png, whose first coin is at `COIN`."""
COIN = (46, 66)
COINS = {"a": (0, 0, 192, 152), "b": (192, 0, 384, 152), "c": (0, 152, 192, 303), "d": (192, 152, 384, 303)}


def photographs(folder: Path) -> Path:
    """Six photographs: a.png to d.png show coins, chelsea.png and rocket.png none."""
    folder.mkdir(parents=True)
    coins = read_photo("coins")
    for name, (x0, y0, x1, y1) in COINS.items():
        Image.fromarray(coins[y0:y1, x0:x1]).save(folder / f"{name}.png")
    for name in ("chelsea", "rocket"):
        Image.fromarray(read_photo(name)).save(folder / f"{name}.png")
    return folder


class Server:
    """A server on a free port; `address` is what it printed."""

    def __init__(self, images: Path, out: Path, *options: str):
        command = [sys.executable, "-m", "kshot", "serve", str(images), "-o", str(out), "--port", "0", *options]
        command += ["--cache", str(out.parent / "cache")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        line = self.process.stdout.readline() if self.process.stdout else ""
        found = re.search(r"http://\S+", line)
        if not found:
            self.process.kill()
            raise RuntimeError(f"no address: {line}")
        self.address = found[0]

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        """The exit code after a signal."""
        self.process.send_signal(how)
        code = self.process.wait(30)
        if self.process.stdout:
            self.process.stdout.close()
        return code


@contextmanager
def serving(images: Path, out: Path, *options: str) -> Iterator[Server]:
    """A server that ends with the context."""
    server = Server(images, out, *options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)
        if server.process.stdout:
            server.process.stdout.close()


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield started
        finally:
            started.close()


def opened(page: Page, address: str) -> Page:
    """The page when it is ready; what it throws or logs as an error fails the test that reads `page.problems`."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.problems = problems  # type: ignore[attr-defined]
    page.set_default_timeout(60_000)
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    return page


def name_class(page: Page, name: str) -> None:
    """Name the first class, in the middle of the page."""
    page.fill("#first-name", name)
    page.press("#first-name", "Enter")
    page.wait_for_selector("#classes li")


def open_image(page: Page, name: str) -> None:
    """Open an image by its tile, and wait until it is seen: before, it takes no mark."""
    page.click(f'.tile[aria-label^="{name}:"]')
    page.wait_for_function("name => document.getElementById('name').textContent === name", arg=name)
    page.wait_for_selector("#canvas[aria-busy=false]")


def place(page: Page, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
    """Where a pixel of the open image, which is fitted and width x height, lies on the screen."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    width, height = size
    scale = min((box["width"] - 24) / width, (box["height"] - 24) / height, 8)
    return (
        box["x"] + (box["width"] - scale * width) / 2 + scale * x,
        box["y"] + (box["height"] - scale * height) / 2 + scale * y,
    )


def answered(page: Page, path: str, holds: Callable[[Any], Any]) -> Any:
    """What the server says at a path, as soon as it holds: Playwright's own waiting takes any promise for true."""
    deadline = time.monotonic() + 60
    while not holds(answer := page.evaluate("(path) => fetch(path).then((answer) => answer.json())", path)):
        assert time.monotonic() < deadline, answer
        page.wait_for_timeout(50)
    return answer
