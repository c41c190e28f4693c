"""Whether a class is there at all: how well presence tells queries that show a class from those that do not.

    python -m benchmarks.accuracy.presence --backbone tiny --out benchmarks/results/presence.json

Episodes of protocol `fs-cs`, half of whose queries lack each class. A false alarm is a query without the class whose
presence is at least that which 95 % of the queries with the class reach.
"""

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.methods import Kind, run_episodes
from benchmarks.settings import arguments, facts, figures, open_set, percent, write
from kshot.evaluation import Result
from kshot.metrics import EpisodeCounts
from kshot.segmenter import Segmenter

KINDS = (Kind("fs-cs", 1, 1), Kind("fs-cs", 1, 5), Kind("fs-cs", 2, 1), Kind("fs-cs", 2, 5))
_BINS = 10


def main() -> None:
    options = _options()
    report: dict[str, Any] = {"facts": facts(), "rows": []}
    segmenter = Segmenter(backbone=options.backbone, method=options.method, size=options.size)
    for name in options.sets:
        for kind in KINDS:
            found = run_episodes(segmenter, open_set(name), kind, options)
            row = {"data": name, "kind": kind.name, "episodes": options.episodes, **figures(found), **_presence(found)}
            report["rows"].append(row)
            print(json.dumps(row), flush=True)
            write(options.out, report)


def _presence(result: Result) -> dict[str, Any]:
    said = np.concatenate([np.asarray(row["present"]) for row in result.rows])
    there = np.concatenate([_truth(row) for row in result.rows])
    needed = np.quantile(said[there], 0.05)
    return {
        "auc": round(_auc(said[there], said[~there]), 4),
        "false_alarms_at_95_recall": percent(float((said[~there] >= needed).mean())),
        "false_alarms": percent(float((said[~there] >= 0.5).mean())),
        "misses": percent(float((said[there] < 0.5).mean())),
        "presence_ece": round(_ece(said, there), 4),
    }


def _truth(row: Any) -> NDArray[np.bool_]:
    """Whether the query shows each class of the episode."""
    way = len(row["present"])
    return np.asarray(EpisodeCounts.from_table(np.asarray([row["table"]]), way).counts.truth[0, 1:] > 0)


def _auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Probability that a query with the class has more presence than one without (Mann-Whitney)."""
    above, level = positive[:, None] > negative, positive[:, None] == negative
    return float((above + 0.5 * level).mean())


def _ece(said: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    """Expected calibration error of presence over ten bins of equal width (Guo et al., ICML 2017, section 2)."""
    bins = np.minimum((said * _BINS).astype(int), _BINS - 1)
    return float(sum((bins == b).mean() * abs(said[bins == b].mean() - there[bins == b].mean()) for b in set(bins)))


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "seed", "size", "workers", "cache", "out", episodes=300, backbone="tiny")
    parser.add_argument("--sets", nargs="+", default=["voc", "coco-mini"])
    parser.add_argument("--method", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
