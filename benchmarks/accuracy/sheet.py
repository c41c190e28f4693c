"""A sheet of queries to look at: a row an episode, with its support, the truth, and what each method makes of it.

python -m benchmarks.accuracy.sheet --out sheet.png
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.accuracy.methods import METHODS
from benchmarks.settings import SETS, arguments, open_set
from kshot.data.base import Dataset
from kshot.episodes.sampler import Episode, draw_episodes
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from kshot.segmenter import Segmenter

_CELL, _TITLE = (168, 128), 14  # width and height of an image, height of a line of text


def main() -> None:
    options = _options()
    data = open_set(options.set)
    drawn = list(draw_episodes(data, options.protocol, 1, options.shot, options.count, options.seed, drop_small=True))
    columns = [("support", [_support(data, e) for e in drawn]), ("truth", [_truth(data, e) for e in drawn])]
    with tempfile.TemporaryDirectory() as folder:
        for method in options.methods:
            segmenter = Segmenter(backbone=options.backbone, method=method)
            runner = EpisodeRunner(segmenter, data, FeatureCache(Path(folder)))
            columns.append((method, [_found(runner, e) for e in drawn]))
    _sheet(columns).save(options.out)


def _found(runner: EpisodeRunner, episode: Episode) -> Image.Image:
    result = runner.predict(episode)
    prediction, valid_mask = result.prediction, result.truth != 255
    found, truth = (prediction.mask == 1) & valid_mask, result.truth == 1
    either = (found | truth).sum()
    iou = f"{(found & truth).sum() / either:.2f}" if either else "right"
    present = next(iter(prediction.present.values()))
    return _cell(np.asarray(runner.image(episode.query)), prediction.mask == 1, f"{iou}  there {present:.2f}")


def _support(data: Dataset, episode: Episode) -> Image.Image:
    image, own = episode.supports[0][0], episode.classes[0]
    return _cell(_read(data, image), data.truth(image) == own, data.classes[own - 1])


def _truth(data: Dataset, episode: Episode) -> Image.Image:
    return _cell(_read(data, episode.query), data.truth(episode.query) == episode.classes[0], episode.query)


def _read(data: Dataset, image: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(data.image_path(image)).convert("RGB"))


def _cell(image: NDArray[np.uint8], mask: NDArray[np.bool_], title: str) -> Image.Image:
    """The image with everything but the mask greyed, and a line below."""
    grey = image.mean(2, keepdims=True) * 0.35
    shown = np.where(mask[..., None], image, grey).astype(np.uint8)
    small = Image.fromarray(shown)
    small.thumbnail(_CELL)
    cell = Image.new("RGB", (_CELL[0], _CELL[1] + _TITLE), "white")
    cell.paste(small)
    ImageDraw.Draw(cell).text((2, _CELL[1] + 1), title[:28], "black")
    return cell


def _sheet(columns: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    width, height = _CELL[0] + 4, _CELL[1] + _TITLE + 4
    sheet = Image.new("RGB", (width * len(columns), _TITLE + height * len(columns[0][1])), "white")
    for x, (name, cells) in enumerate(columns):
        ImageDraw.Draw(sheet).text((x * width + 2, 1), name, "black")
        for y, cell in enumerate(cells):
            sheet.paste(cell, (x * width, _TITLE + y * height))
    return sheet


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "backbone", "seed")
    parser.add_argument("--set", choices=list(SETS), default="voc")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--protocol", default="hsnet", help="fs-cs: half of the queries lack the class.")
    parser.add_argument("--shot", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
