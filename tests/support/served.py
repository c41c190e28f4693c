"""The application of `kshot serve` over drawn pictures, without a network."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

import kshot
from kshot.serve.server import opened
from tests.support.drawing import draw

_PATIENCE = 60.0


def pictures(folder: Path, count: int = 4) -> Path:
    """0.png, 1.png, ...: a red disc each; the last shows none."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        Image.fromarray(draw(seed, disc=seed < count - 1)[0]).save(folder / f"{seed}.png")
    return folder


def disc(seed: int) -> np.ndarray:
    """(h, w) bool: where the disc of a picture is."""
    return draw(seed)[1]


def middle(seed: int) -> dict[str, float]:
    """x and y of the middle of its disc."""
    y, x = np.argwhere(disc(seed)).mean(0)
    return {"x": float(x), "y": float(y)}


@contextmanager
def client(images: Path, out: Path, segmenter: kshot.Segmenter, **options: Any) -> Iterator[TestClient]:
    """A client of the served folder; the server ends with the context."""
    cache = out.parent / "cache"
    with opened(images, out, segmenter, cache=cache, **options) as app, TestClient(app, "http://127.0.0.1") as served:
        yield served


def settled(served: TestClient) -> dict[str, Any]:
    """The status when nothing is left to do in the background."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        status: dict[str, Any] = served.get("/api/status").json()
        if status["idle"]:
            return status
        time.sleep(0.02)
    raise TimeoutError(f"the background is not through: {status}")


def mask_of(served: TestClient, index: int) -> np.ndarray:
    """(h, w) labels that are shown at even odds."""
    from io import BytesIO

    data = served.get(f"/api/images/{index}/mask").content
    labels, certainty = np.split(np.asarray(Image.open(BytesIO(data))), 2)
    return np.where(certainty >= 128, labels, 0)


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    return float((found & truth).sum() / (found | truth).sum())
