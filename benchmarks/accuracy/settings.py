"""Which settings suit which images: one setting changed at a time, on development sets of four kinds of images.

Each row is a setting, each column a set: `tiny` with the defaults first, then another size, backbone, refiner or
method, and tiles. Episodes are 1-way, drawn as HSNet draws them, the same in every row of a column. The figure is the
mIoU in percent, beside it the difference to the first row with its 95 % interval, paired by episode.

python -m benchmarks.accuracy.settings --out benchmarks/results/settings.json --table
"""

import json
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import VIT_TINY, VOC, arguments, facts, percent, shared, write
from kshot.batch.large_images import predict_tiled
from kshot.data.base import Dataset, load_dataset
from kshot.episodes.sampler import Episode, draw_episodes
from kshot.evaluation import evaluate
from kshot.evaluation.episode import EpisodeResult, EpisodeRunner
from kshot.features import FeatureCache
from kshot.features.tiles import Tiling
from kshot.metrics import paired_bootstrap
from kshot.segmenter import Segmenter

# What the images show, for the table; and where they lie.
KINDS = {
    "voc": ("photographs", VOC),
    "wbc": ("cells", shared("data/wbc")),
    "crack": ("cracks", shared("data/crack")),
    "cwfid": ("fields from above", shared("data/domains/cwfid")),
    "neuseg": ("steel surfaces", shared("data/domains/neuseg")),
    "granular": ("piles of ore", shared("data/domains/granular")),
}


@dataclass(frozen=True)
class Arm:
    """One row: settings that are not the defaults."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tiling: Tiling | None = None
    """Tiles of the query; supports are seen whole, as in `kshot label`."""


ARMS = (
    Arm("defaults"),
    Arm("size 256", {"size": 256}),
    Arm("size 640", {"size": 640}),
    Arm("tiles of 256", tiling=Tiling(256, 64)),
    Arm("refiner none", {"refiner": "none"}),
    Arm("refiner crf", {"refiner": "crf"}),
    Arm("method prototype", {"method": "prototype"}),
    Arm("method matching", {"method": "matching"}),
    Arm("backbone classic", {"backbone": "classic"}),
    Arm("backbone ViT-Tiny", {"backbone": VIT_TINY}),
)


class TiledRunner(EpisodeRunner):
    """Runs episodes whose queries are predicted tile by tile."""

    def __init__(self, segmenter: Segmenter, data: Dataset, cache: FeatureCache, tiling: Tiling):
        super().__init__(segmenter, data, cache)
        self.tiling = tiling

    def predict(self, episode: Episode) -> EpisodeResult:
        """Fit on the supports, predict the query in tiles."""
        names = tuple(self.data.classes[c - 1] for c in episode.classes)
        segmenter = self.segmenter
        task = segmenter.method.Task(names, self.supports(episode), segmenter.feature_spec, segmenter.settings)
        prediction = predict_tiled(segmenter, task, self.tiling, self.image(episode.query))
        return EpisodeResult(episode, prediction, self.labels(episode.query, episode.classes), task)


def main() -> None:
    parser = arguments(__doc__, "seed", "cache", "out", episodes=50)
    parser.add_argument("--shot", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--arms", nargs="+", default=[arm.name for arm in ARMS], help="the defaults come first")
    parser.add_argument("--table", action="store_true", help="print the table of docs/how_to/which_settings.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            rows += _rows_of(name, options, Path(folder))
            write(options.out, {"about": facts(), "shot": options.shot, "rows": rows})
    if options.table:
        print(table(rows))


def _rows_of(name: str, options: Any, folder: Path) -> list[dict[str, Any]]:
    """A row for each arm on one set."""
    data = open_kind(name, folder)
    drawn = draw_episodes(data, "hsnet", 1, options.shot, options.episodes, options.seed, drop_small=True)
    cache, first, rows = options.cache or folder / "cache", None, []
    for arm in (arm for arm in ARMS if arm.name in options.arms):
        started = time.process_time()
        if arm.tiling and first:
            runner = TiledRunner(Segmenter(**arm.settings), data, FeatureCache(cache), arm.tiling)
            result = replace(first, rows=tuple(map(runner.run, drawn)))
        else:
            result = evaluate(Segmenter(**arm.settings), data, episodes=drawn, cache=cache)
        first = first or result
        gap = paired_bootstrap(result.score, first.score)
        rows.append(
            {
                "set": name,
                "kind": KINDS[name][0],
                "arm": arm.name,
                "episodes": len(drawn),
                "miou": percent(result.miou),
                "difference": [percent(value) for value in (gap.value, gap.low, gap.high)],
                "boundary_f": percent(result.boundary),
                "seconds": round(time.process_time() - started, 1),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def open_kind(name: str, folder: Path) -> Dataset:
    """A set; one whose classes.json has VOC's order of names gets another list beside links to its folders."""
    root = KINDS[name][1]
    listed = json.loads((root / "classes.json").read_text()) if (root / "classes.json").is_file() else {}
    if "names" not in listed:
        return load_dataset("auto", root)
    place = folder / name
    place.mkdir()
    for part in ("images", "masks"):
        (place / part).symlink_to((root / part).resolve())
    names = {str(label): text for label, text in enumerate(listed["names"]) if label}
    (place / "classes.json").write_text(json.dumps(names))
    return load_dataset("auto", place)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: arms down, sets across."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    found = {(row["arm"], row["set"]): row for row in rows}
    heads = [f"{KINDS[name][0]} ({name})" for name in sets]
    arms = {arm: [_cell(found.get((arm, name))) for name in sets] for arm in dict.fromkeys(row["arm"] for row in rows)}
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(sets) + 1) + "|"]
    return "\n".join([*lines, *(f"| {arm} | {' | '.join(cells)} |" for arm, cells in arms.items())])


def _cell(row: dict[str, Any] | None) -> str:
    """The mIoU, and the difference where its interval excludes zero."""
    if row is None:
        return "-"
    value, low, high = row["difference"]
    told = f" ({value:+.1f})" if low > 0 or high < 0 else ""
    return f"{row['miou']:.1f}{told}"


if __name__ == "__main__":
    main()
