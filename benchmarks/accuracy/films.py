"""J&F of made films, with a memory of earlier frames and without: no DAVIS figure, as no data of DAVIS lies here.

    python -m benchmarks.accuracy.films --root ../shared/data/VOCdevkit/VOC2012

Each of eight photographs of VOC's val list with one class of 5 to 40 % of the area becomes a film of 20 frames: it is
panned, zoomed and turned, its light changes, and noise is added. The first frame is the support.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import kshot
from kshot.data.base import Dataset, load_dataset
from kshot.evaluation import evaluate_films
from kshot.io.images import read_image

FILMS, FRAMES, SIDE = 8, 20, 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="VOC 2012")
    parser.add_argument("--out", type=Path, help="write JSON here")
    given = parser.parse_args()
    seg, rows = kshot.Segmenter(device="cpu"), dict[str, dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:
        make_films(load_dataset("voc", given.root), Path(folder))
        for memory in (0, 5):
            figures = evaluate_films(seg, folder, memory=memory).figures
            rows[f"memory {memory}"] = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps(rows, indent=1))
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


def make_films(data: Dataset, root: Path) -> None:
    """Write the films in the layout of DAVIS."""
    made = 0
    for name in data.ids("val"):
        labels = data.truth(name)
        shown = [int(label) for label in np.unique(labels) if label not in (0, 255)]
        if len(shown) == 1 and 0.05 < (labels == shown[0]).mean() < 0.4 and made < FILMS:
            made += 1
            mask = np.where(labels == shown[0], np.uint8(1), np.where(labels == 255, np.uint8(255), np.uint8(0)))
            _film(root, name, read_image(data.image_path(name)), mask, np.random.default_rng(made))


def _film(root: Path, name: str, image: NDArray[np.uint8], mask: NDArray[np.uint8], rng: np.random.Generator) -> None:
    pan, zoom, turn, light = rng.uniform(-3, 3, 2), rng.uniform(-0.012, 0.012), rng.uniform(-1, 1), rng.uniform(-2, 2)
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / name).mkdir(parents=True)
    for place in range(FRAMES):
        view = _View(place * pan, (1 + zoom) ** place, place * turn)
        frame = np.asarray(view.of(Image.fromarray(image), Image.Resampling.BILINEAR, (0, 0, 0)), np.float64)
        noisy = (frame + place * light + rng.normal(0, 4, frame.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "JPEGImages" / "480p" / name / f"{place:05}.jpg", quality=90)
        truth = view.of(Image.fromarray(mask), Image.Resampling.NEAREST, 255)
        truth.putpalette([value % 256 for value in range(768)])
        truth.save(root / "Annotations" / "480p" / name / f"{place:05}.png")


class _View(NamedTuple):
    """Where the camera looks."""

    pan: NDArray[np.float64]
    """xy from the middle, in pixels of the photograph."""
    scale: float
    turn: float
    """Degrees."""

    def of(self, image: Image.Image, resampling: Image.Resampling, outside: int | tuple[int, int, int]) -> Image.Image:
        """What is seen of an image, SIDE pixels of its longer side."""
        width, height = (round(side * SIDE / max(image.size)) for side in image.size)
        ratio = max(image.size) / SIDE / self.scale
        cosine, sine = ratio * np.cos(np.radians(self.turn)), ratio * np.sin(np.radians(self.turn))
        x, y = image.width / 2 + self.pan[0], image.height / 2 + self.pan[1]
        across = (cosine, -sine, x - cosine * width / 2 + sine * height / 2)
        down = (sine, cosine, y - sine * width / 2 - cosine * height / 2)
        return image.transform((width, height), Image.Transform.AFFINE, across + down, resampling, fillcolor=outside)


if __name__ == "__main__":
    main()
