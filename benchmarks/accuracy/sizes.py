"""What `size="auto"` gives and costs: episodes at the default size, at 1.5 times that, and at the chosen one.

Episodes are 1-way, drawn as HSNet draws them. The figure is the mIoU in percent, beside it the difference to the
default size with its 95 % interval, paired by episode; `choices` counts which sizes were taken. Costs are seconds of
one thread, medians over the episodes: of the choice, and of fitting and predicting at each size, where the features of
the smaller two sizes are there already. A run that was stopped has the figures of the episodes that it did;
the same command goes on with the others.

python -m benchmarks.accuracy.sizes --out benchmarks/results/sizes.json --table
"""

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.settings import KINDS, open_kind
from benchmarks.settings import arguments, facts, percent, write
from kshot.episodes.sampler import Episode, draw_episodes
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from kshot.metrics import EpisodeCounts, IoUCounts, fss_miou, paired_bootstrap
from kshot.segmenter import Segmenter

SETS = ("crack", "cwfid", "voc")


def main() -> None:
    parser = arguments(__doc__, "seed", "cache", "out", episodes=24)
    parser.add_argument("--shot", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(KINDS))
    parser.add_argument("--table", action="store_true", help="print the table of docs/how_to/which_settings.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    segmenter, before = Segmenter(size="auto"), _rows_of(options.out)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            data = open_kind(name, Path(folder))
            drawn = draw_episodes(data, "hsnet", 1, options.shot, options.episodes, options.seed, drop_small=True)
            runner = EpisodeRunner(segmenter, data, FeatureCache(options.cache or Path(folder) / "cache"))
            done = before.get(name, [])[: len(drawn)]
            found.append(_figures(name, done, segmenter.sizes) if done else {})
            for episode in list(drawn)[len(done) :]:
                done.append(_run(runner, episode))
                print(json.dumps({"set": name, **done[-1]}), flush=True)
                found[-1] = _figures(name, done, segmenter.sizes)
                write(options.out, {"about": facts(), "shot": options.shot, "seed": options.seed, "sets": found})
    if options.table:
        print(table(found))


def _rows_of(out: Path | None) -> dict[str, list[dict[str, Any]]]:
    """The rows of each set that an earlier run wrote."""
    sets = json.loads(out.read_text())["sets"] if out is not None and out.is_file() else []
    return {one["set"]: one["rows"] for one in sets}


def _run(runner: EpisodeRunner, episode: Episode) -> dict[str, Any]:
    """The choice of an episode, and what the default size, the next one and the chosen one find in its query."""
    for sized in list(runner.sized.values())[:2]:
        sized.supports(episode)  # encoded before the clock runs, as a cache would have them
    choice, seconds = _timed(lambda: runner.choice(episode))
    row = {"episode": episode.index, "chosen": choice.size, "loo": choice.to_dict()["ious"], "choice_s": seconds}
    for size in sorted({*runner.segmenter.sizes[:2], choice.size}):
        sized = runner.sized[size]
        sized.features(episode.query)
        result, row[f"task_s_{size}"] = _timed(lambda sized=sized: sized.predict(episode))  # type: ignore[misc]
        counts = IoUCounts.from_masks(result.prediction.mask, result.truth, 1)
        row[f"table_{size}"] = EpisodeCounts.of(episode.index, episode.classes, counts).to_table()[0].tolist()
    return row


def _figures(name: str, done: list[dict[str, Any]], sizes: tuple[int, ...]) -> dict[str, Any]:
    """mIoU of each arm over the episodes so far, and the costs."""
    arms = {f"size {size}": [row[f"table_{size}"] for row in done] for size in sizes[:2]}
    arms["size auto"] = [row[f"table_{row['chosen']}"] for row in done]
    scores = {}
    for arm, tables in arms.items():
        counts = EpisodeCounts.from_table(torch.tensor(tables).numpy(), 1)
        scores[arm] = fss_miou(counts, sorted({int(label) for label in counts.classes[:, 0]}))
    first = scores[f"size {sizes[0]}"]
    gaps = {arm: paired_bootstrap(score, first) for arm, score in scores.items()}
    return {
        "set": name,
        "kind": KINDS[name][0],
        "episodes": len(done),
        "miou": {arm: percent(score.value) for arm, score in scores.items()},
        "difference": {arm: [percent(v) for v in (gap.value, gap.low, gap.high)] for arm, gap in gaps.items()},
        "choices": {str(size): count for size, count in sorted(Counter(row["chosen"] for row in done).items())},
        "choice_s": statistics.median(row["choice_s"] for row in done),
        "task_s": {
            str(size): statistics.median(row[f"task_s_{size}"] for row in done if f"task_s_{size}" in row)
            for size in sizes
            if any(f"task_s_{size}" in row for row in done)
        },
        "rows": done,
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds of this process that it took."""
    started = time.process_time()
    return work(), round(time.process_time() - started, 2)


def table(sets: list[dict[str, Any]]) -> str:
    """Markdown: a set a row."""
    lines = [
        "| | episodes | " + " | ".join(sets[0]["miou"]) + " | chosen | choice, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in sets:
        cells = [f"{value:.1f}{_gap(one['difference'][arm])}" for arm, value in one["miou"].items()]
        chosen = ", ".join(f"{size}: {count}" for size, count in one["choices"].items())
        row = [f"{one['kind']} ({one['set']})", str(one["episodes"]), *cells, chosen, f"{one['choice_s']:.0f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _gap(difference: list[float]) -> str:
    """The difference and its interval; nothing for the arm that it is to."""
    value, low, high = difference
    return f" ({value:+.1f}; {low:+.1f} to {high:+.1f})" if any(difference) else ""


if __name__ == "__main__":
    main()
