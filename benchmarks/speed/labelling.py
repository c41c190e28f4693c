"""The whole job on the page of `kshot serve`: photographs of two classes, labelled by a script that acts as a person.

    python -m benchmarks.speed.labelling --root shared/data/masks/animals7 --out benchmarks/results/labelling.json

It names two classes, clicks on one animal, and goes through the images in the order in which the page opens them. It
looks at each (a pause), and clicks in the middle of the largest error, on or off the class, until the mask overlaps
the truth well or a few clicks are done; then it accepts. In the end it exports, and the files are opened by pycocotools
and, where it is installed, by labelme. Counted are its gestures, its pauses, and the time that it waits for the
machine.
"""

import argparse
import io
import json
import os
import random
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.chromium import executable
from benchmarks.settings import arguments, facts, shared, write
from benchmarks.speed.serve import served

Labels = NDArray[np.uint8]
GOOD, CLICKS = 0.8, 3
"""Overlap with the truth that the person is content with; clicks that an image is worth."""
LOOK, AIM = 1.0, 0.8
"""Seconds that a person looks at an image, and takes for a click."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        truth = _chosen(options.root, options.classes.split(","), options.images, folder)
        with served(folder, Path(place) / "out", options.cache or Path(place) / "cache") as address:
            report = _labelled(address, truth, options.classes.split(","))
        report |= _opened(Path(place) / "out" / "export", len(truth))
    load = round(os.getloadavg()[0], 1)
    report = {"facts": facts(), "load": load, "images": options.images, "classes": options.classes} | report
    print(json.dumps(report, indent=1))
    write(options.out, report)


@dataclass
class Person:
    """Eyes and hands over a page. truth: {name: labels}."""

    page: Any
    address: str
    truth: dict[str, Labels]
    numbers: dict[str, int]
    gestures: int = 0
    paused: float = 0.0
    waited: float = 0.0
    before: list[tuple[Labels, Labels]] = field(default_factory=list)
    """Mask as it was when the image was opened, and truth."""
    after: list[tuple[Labels, Labels]] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.page.wait_for_timeout(1000 * seconds)
        self.paused += seconds

    def wait_for(self, expression: str, argument: Any = None) -> None:
        begun = time.perf_counter()
        self.page.wait_for_function(expression, arg=argument, timeout=300_000, polling=20)
        self.waited += time.perf_counter() - begun

    def label(self, name: str) -> None:
        """Look at the open image, correct it and accept it."""
        truth = self.truth[name]
        self.pause(LOOK)
        shown = self.mask()
        self.before.append((shown, truth))
        for _ in range(CLICKS):
            label, on, (x, y) = _largest_error(shown, truth)
            if _overlap(shown, truth) >= GOOD:
                break
            self.page.keyboard.press(str(label))
            self.click(x, y, on)
            shown = self.mask()
        self.after.append((shown, truth))
        self.gestures += 1
        self.page.keyboard.press("Enter")

    def click(self, x: float, y: float, on: bool) -> None:
        self.pause(AIM)
        count = self.page.evaluate("performance.getEntriesByName('kshot-stroke').length")
        x, y = self.on_screen(x, y)
        if not on:
            self.page.keyboard.down("Shift")
        self.page.mouse.click(x, y)
        if not on:
            self.page.keyboard.up("Shift")
        self.gestures += 1
        self.wait_for("count => performance.getEntriesByName('kshot-stroke').length > count", count)

    def on_screen(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the open image lies, which is fitted into the canvas with a margin."""
        box = self.page.locator("#canvas").bounding_box()
        height, width = self.truth[self.name()].shape
        scale = min((box["width"] - 24) / width, (box["height"] - 24) / height, 8)
        left, top = box["x"] + (box["width"] - scale * width) / 2, box["y"] + (box["height"] - scale * height) / 2
        return left + scale * x, top + scale * y

    def name(self) -> str:
        return str(self.page.text_content("#name"))

    def mask(self) -> Labels:
        with urllib.request.urlopen(f"{self.address}api/images/{self.numbers[self.name()]}/mask") as answer:
            labels, certainty = np.split(np.asarray(Image.open(io.BytesIO(answer.read()))), 2)
        return np.where(certainty >= 128, labels, 0).astype(np.uint8)


def _labelled(address: str, truth: dict[str, Labels], classes: list[str]) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        begun = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        rows = page.evaluate("fetch('/api/images?limit=1000').then((answer) => answer.json())")["images"]
        person = Person(page, address, truth, {row["name"]: row["index"] for row in rows})
        person.waited = time.perf_counter() - begun
        page.fill("#first-name", classes[0])
        page.press("#first-name", "Enter")
        page.fill("#new-name", classes[1])
        page.press("#new-name", "Enter")
        person.pause(2 * LOOK)
        person.gestures += 2
        for decided in range(1, len(truth) + 1):
            name = person.name()
            person.wait_for("() => !document.getElementById('accept').disabled")
            person.label(name)
            person.wait_for(
                "told => document.getElementById('progress-text').textContent.startsWith(told)", f"{decided} of"
            )
            if decided < len(truth):
                person.wait_for("name => document.getElementById('name').textContent !== name", name)
        person.wait_for("() => fetch('/api/status').then((a) => a.json()).then((status) => status.idle)")
        total = time.perf_counter() - begun
        for name in ("coco", "labelme"):
            page.click("#open-export")
            page.check(f"#formats input[value={name}]", force=True)
            page.click("#do-export")
            person.wait_for("() => document.getElementById('exported').textContent.includes('written')")
            page.keyboard.press("Escape")
            person.gestures += 3
        browser.close()
    return {
        "gestures": person.gestures,
        "minutes": round(total / 60, 2),
        "seconds_paused": round(person.paused, 1),
        "seconds_waited": round(person.waited, 1),
        "good_as_opened": sum(_overlap(*pair) >= GOOD for pair in person.before),
        "miou_as_opened": _miou(person.before),
        "miou_accepted": _miou(person.after),
    }


def _largest_error(shown: Labels, truth: Labels) -> tuple[int, bool, tuple[float, float]]:
    """Class, whether it is missing there, and the middle of the largest connected error."""
    best: tuple[float, int, bool, NDArray[np.float64]] | None = None
    for label in (1, 2):
        for on in (True, False):
            wrong = (truth == label) & (shown != label) if on else (truth == 0) & (shown == label)
            parts, count = ndimage.label(wrong)
            if not count:
                continue
            sizes = ndimage.sum_labels(wrong, parts, range(1, count + 1))
            if best is None or sizes.max() > best[0]:
                part = np.pad(parts == 1 + sizes.argmax(), 1)
                best = float(sizes.max()), label, on, ndimage.distance_transform_edt(part)[1:-1, 1:-1]
    if best is None:
        return 1, True, (0.5, 0.5)
    y, x = np.unravel_index(best[3].argmax(), best[3].shape)
    return best[1], best[2], (float(x) + 0.5, float(y) + 0.5)


def _overlap(shown: Labels, truth: Labels) -> float:
    """Mean IoU of the classes that the image shows, or that are found in it."""
    found = [
        float((a & b).sum() / (a | b).sum()) for a, b in ((shown == c, truth == c) for c in (1, 2)) if (a | b).any()
    ]
    return float(np.mean(found)) if found else 1.0


def _miou(pairs: list[tuple[Labels, Labels]]) -> float:
    """Over all images together, the mean of both classes, in percent."""
    found = []
    for label in (1, 2):
        shared_pixels = sum(int(((a == label) & (b == label)).sum()) for a, b in pairs)
        found.append(shared_pixels / sum(int(((a == label) | (b == label)).sum()) for a, b in pairs))
    return round(100 * float(np.mean(found)), 2)


def _opened(exports: Path, count: int) -> dict[str, Any]:
    """What the tools' own readers find in the exported files."""
    from pycocotools.coco import COCO

    coco = COCO(str(exports / "coco" / "coco.json"))
    masks = [coco.annToMask(one) for one in coco.anns.values()]
    found: dict[str, Any] = {"pycocotools": {"images": len(coco.imgs), "objects": len(masks)}}
    try:
        labelme = import_module("labelme._label_file")
    except ImportError:
        return found
    files = [labelme.read_label_file(str(path)) for path in sorted((exports / "labelme").rglob("*.json"))]
    if len(files) != count:
        raise ValueError(f"labelme finds {len(files)} files of {count}")
    return found | {"labelme": {"images": len(files), "shapes": sum(len(file.shapes) for file in files)}}


def _chosen(root: Path, classes: list[str], count: int, folder: Path) -> dict[str, Labels]:
    """Copy photographs that show one of the classes, half of each; returns their labels by name."""
    folder.mkdir()
    names = json.loads((root / "classes.json").read_text())["names"]
    rows = {names.index(name): label for label, name in enumerate(classes, 1)}
    wanted = dict.fromkeys(rows.values(), count // 2)
    truth: dict[str, Labels] = {}
    for path, mask in _shuffled(root):
        shown = [label for row, label in rows.items() if (mask == row).mean() > 0.02]
        if len(shown) == 1 and wanted[shown[0]]:
            wanted[shown[0]] -= 1
            shutil.copy(path, folder)
            truth[path.name] = np.select([mask == row for row in rows], list(rows.values()), 0).astype(np.uint8)
    return truth


def _shuffled(root: Path) -> Iterator[tuple[Path, Labels]]:
    paths = sorted((root / "images").iterdir())
    random.Random(0).shuffle(paths)
    for path in paths:
        mask = root / "masks" / f"{path.stem}.png"
        if mask.is_file():
            yield path, np.asarray(Image.open(mask))


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "cache", "out", root=shared("data/masks/animals7"))
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--classes", default="elephant,turtle")
    return parser.parse_args()


if __name__ == "__main__":
    main()
