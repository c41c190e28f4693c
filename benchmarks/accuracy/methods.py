"""Every method on every development set, or `auto` with each part off or constants moved; one row of JSON a run.

    python -m benchmarks.accuracy.methods --out benchmarks/results/methods_512.json
    python -m benchmarks.accuracy.methods --arms ablation --out benchmarks/results/ablation_512.json

A run that is stopped goes on where it was. Classes are halved by their number, odd and even, so that what was chosen
on one half can be read off the other: `benchmarks.accuracy.nested` does so for `--arms variants`.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.accuracy import salience
from benchmarks.settings import SETS, arguments, facts, figures, open_set, percent, write
from kshot.backbones.base import DEFAULT as TINY
from kshot.data.base import Dataset
from kshot.evaluation import Result, evaluate
from kshot.segmenter import Segmenter

METHODS = (
    *("prototype", "mixture", "attention", "matching", "density", "regions"),
    *("image-prompt", "text", "clip-dinoiser", "auto"),
)
PARTS = (
    *("affinity_smoothing", "self_support", "calibrate_threshold", "ensemble"),
    *("background_prior", "pixels", "calibrate_scores", "presence"),
)
_ENOUGH = 6  # images of a class that 5 shots and a query need


class Kind(NamedTuple):
    """Episodes of one kind."""

    protocol: str
    way: int
    shot: int

    @property
    def name(self) -> str:
        """As in 2-way 1-shot."""
        return f"{self.way}-way {self.shot}-shot"


class Arm(NamedTuple):
    """A method with settings, and layers other than the backbone's own."""

    name: str
    method: str
    settings: dict[str, Any]
    refiner: str = "edges"
    layers: tuple[str, ...] | None = None
    crops: bool = True  # whether supports are seen from near


KINDS = (Kind("hsnet", 1, 1), Kind("hsnet", 1, 5), Kind("fs-cs", 2, 1))
MORE_WAYS = (Kind("fs-cs", 2, 5), Kind("fs-cs", 5, 1))  # on demand
ABLATION = (
    Arm("all parts", "auto", {}),
    *(Arm(f"without {part}", "auto", {part: False}) for part in PARTS),
    Arm("without crops", "auto", {}, crops=False),
    Arm("without edges", "auto", {}, "none"),
    Arm("without several layers", "auto", {}, layers=("12",)),
)
MOVED = {
    "query_threshold_shift": (0.0, 0.2, 0.7),
    "presence_threshold": (0.0, 0.3, 0.7),
}
VARIANTS = tuple(Arm(f"{name} {value:g}", "auto", {name: value}) for name, values in MOVED.items() for value in values)
ARMS = {"ablation": ABLATION, "variants": ABLATION + VARIANTS}


def main() -> None:
    options = _options()
    salience.remember()
    report = _begun(options)
    done = {(row["arm"], row["data"], row["kind"]) for row in report["rows"]}
    arms = ARMS.get(options.arms) or [Arm(name, name, {}) for name in options.methods]
    for name in options.sets:
        data = open_set(name)
        for kind in (kind for kind in KINDS + MORE_WAYS if kind.name in options.kinds):
            for arm in arms:
                if (arm.name, name, kind.name) in done or kind.way > len(data.classes):
                    continue
                if arm.layers and Path(options.backbone).name == TINY:
                    continue  # whose layers are part of it
                report["rows"].append(_row(arm, name, kind, data, _run(arm, kind, data, options)))
                print(_line(report["rows"][-1]), flush=True)
                write(options.out, report)


def _run(arm: Arm, kind: Kind, data: Dataset, options: argparse.Namespace) -> Result:
    segmenter = Segmenter(
        backbone=options.backbone,
        method=arm.method,
        method_settings=arm.settings,
        refiner=arm.refiner,
        size=options.size,
        layers=arm.layers,
    )
    with mock.patch.object(segmenter.method.Task, "crops_supports", arm.crops and segmenter.method.Task.crops_supports):
        return run_episodes(segmenter, data, kind, options)


def run_episodes(segmenter: Segmenter, data: Dataset, kind: Kind, options: argparse.Namespace) -> Result:
    """Episodes of one kind; options: `episodes`, `seed`, `workers` and `cache` of the command line."""
    return evaluate(
        segmenter,
        data,
        way=kind.way,
        shot=kind.shot,
        protocol=kind.protocol,
        episodes=options.episodes,
        seed=options.seed,
        drop_small=True,
        workers=options.workers,
        cache=options.cache,
    )


def _row(arm: Arm, name: str, kind: Kind, data: Dataset, result: Result) -> dict[str, Any]:
    images = {c: len({pair.image for pair in data.pairs() if pair.class_id == c}) for c in data.fold_classes()}
    parts = {int(c): value for c, value in result.score.parts.items() if int(c) > 0 and not math.isnan(value)}
    groups = {
        "odd": [value for label, value in parts.items() if label % 2],
        "even": [value for label, value in parts.items() if label % 2 == 0],
        "common": [value for label, value in parts.items() if images.get(label, 0) >= _ENOUGH],
    }
    return {
        "arm": arm.name,
        "data": name,
        "kind": kind.name,
        "protocol": kind.protocol,
        "episodes": len(result.rows),
        "classes": len(parts),
        **figures(result),
        **{f"miou_{group}": percent(sum(v) / len(v)) if v else None for group, v in groups.items()},
        "classes_common": len(groups["common"]),
        "per_class": {label: percent(value) for label, value in result.per_class.items()},
        "method_settings": arm.settings,
        "refiner": arm.refiner,
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['data']:10} {row['kind']}  {row['arm']:22} mIoU {row['miou']:.1f} ({row['classes']} classes; "
        f"common {row['miou_common'] or 0:.1f}, odd {row['miou_odd'] or 0:.1f}, even {row['miou_even'] or 0:.1f})  "
        f"strict {row['strict_miou']:.1f}  presence {row['presence_accuracy']:.1f}  ECE {row['calibration_error']:.3f}"
    )


def _begun(options: argparse.Namespace) -> dict[str, Any]:
    if options.out.is_file():
        begun: dict[str, Any] = json.loads(options.out.read_text())
        return begun
    settings = {"backbone": Path(options.backbone).name, "size": options.size, "seed": options.seed}
    return {"facts": facts(), "settings": settings, "rows": []}


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "backbone", "seed", "workers", "cache", episodes=500, size=512)
    parser.add_argument("--arms", choices=["methods", *ARMS], default="methods")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--kinds", nargs="+", default=[kind.name for kind in KINDS])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
