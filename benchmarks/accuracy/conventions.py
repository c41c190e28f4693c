"""One set of predictions scored by the conventions that published codes use: how much of a figure is convention?

python -m benchmarks.accuracy.conventions --root VOCdevkit/VOC2012 --backbone NAME --way 1 --episodes 300
"""

import numpy as np
from PIL import Image

from benchmarks.settings import arguments
from kshot import Segmenter
from kshot.data.base import load_dataset
from kshot.episodes.sampler import draw_episodes
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from kshot.metrics import EpisodeCounts, IoUCounts, bootstrap, fss_miou, panet_miou, strict_miou


def main() -> None:
    parser = arguments(__doc__, "root", "backbone", "cache", episodes=300)
    parser.add_argument("--protocol", default="hsnet")
    parser.add_argument("--way", type=int, default=1)
    parser.add_argument("--shot", type=int, default=1)
    given = parser.parse_args()
    data = load_dataset("voc", given.root)
    drawn = draw_episodes(data, given.protocol, given.way, given.shot, given.episodes, drop_small=True)
    runner = EpisodeRunner(Segmenter(backbone=given.backbone), data, FeatureCache(given.cache))
    parts: dict[str, list[EpisodeCounts]] = {"original": [], "void": [], "square": []}
    for episode in drawn:
        result = runner.predict(episode)
        mask, truth = result.prediction.mask, result.truth
        scored = {
            "original": (mask, truth),
            "void": (mask, np.where(truth == 255, np.uint8(0), truth)),
            "square": (_square(mask), _square(truth)),
        }
        for name, (found, wanted) in scored.items():
            counts = IoUCounts.from_masks(found, wanted, given.way)
            parts[name].append(EpisodeCounts.of(episode.index, episode.classes, counts))
    runs = {name: EpisodeCounts.merge(rows) for name, rows in parts.items()}
    table = {
        "mIoU, summed over episodes per class": fss_miou(runs["original"]),
        "the same at 400 x 400": fss_miou(runs["square"]),
        "the same, 255 counted as background": fss_miou(runs["void"]),
        "strict: background and false alarms too": strict_miou(runs["original"]),
        "PANet's: only where the truth has the class": panet_miou(runs["original"]),
    }
    print(f"{given.way}-way {given.shot}-shot, {given.protocol}, {len(drawn)} episodes, voc {data.query_split}")
    for name, score in table.items():
        interval = bootstrap(score)
        print(f"{name:46} {interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]")
    print(f"{'mean over images':46} {_per_image(runs['original']):.4f}")
    print(f"{'mean over images, with background':46} {_per_image(runs['original'], background=True):.4f}")


def _square(labels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(labels).resize((400, 400), Image.Resampling.NEAREST))


def _per_image(rows: EpisodeCounts, background: bool = False) -> float:
    """The mean over episodes of each one's mean IoU, as torchmetrics' MeanIoU has it."""
    iou = rows.counts.iou()[:, 0 if background else 1 :]
    return float(np.nanmean(np.nanmean(iou, axis=1)))


if __name__ == "__main__":
    main()
