"""An encoder against another: the same methods on the same episodes, supports with masks and without any.

    python -m benchmarks.accuracy.encoder --backbones tiny --out benchmarks/results/tiny.json

Rows are added to what the file holds; a run that is stopped goes on where it was.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.accuracy.methods import Kind, run_episodes
from benchmarks.settings import VIT_TINY, arguments, facts, figures, open_set, percent, write
from kshot.evaluation import Result
from kshot.methods._class_embeddings import with_salient_masks
from kshot.segmenter import Segmenter

KINDS = (Kind("hsnet", 1, 1), Kind("hsnet", 1, 5))


def main() -> None:
    options = _options()
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    report["facts"] = facts()
    for backbone in options.backbones:
        for name in options.sets:
            for kind in (kind for kind in KINDS if kind.shot in options.shots):
                for method in options.methods:
                    for masks in options.masks:
                        key = {
                            "backbone": Path(backbone).name,
                            "data": name,
                            "kind": kind.name,
                            "method": method,
                            "supports": masks,
                            "episodes": options.episodes,
                            "size": options.size,
                        }
                        if any(key.items() <= row.items() for row in report["rows"]):
                            continue
                        row = key | _figures(_run(backbone, name, kind, method, masks, options))
                        report["rows"].append(row)
                        print(json.dumps({k: row[k] for k in (*key, "miou", "interval", "boundary_f")}), flush=True)
                        write(options.out, report)


def _run(backbone: str, name: str, kind: Kind, method: str, masks: str, options: argparse.Namespace) -> Result:
    segmenter = Segmenter(backbone=backbone, method=method, size=options.size)
    if masks == "none":
        segmenter.method = SimpleNamespace(Task=_Unmasked(segmenter.method.Task), __name__="kshot.methods.unmasked")
    return run_episodes(segmenter, open_set(name), kind, options)


class _Unmasked:
    """Makes a task of supports whose masks nobody drew."""

    def __init__(self, task: Any):
        self.task = task

    def __call__(self, classes: Any, supports: Any, *rest: Any) -> Any:
        return self.task(classes, tuple(replace(with_salient_masks(s), kind="image") for s in supports), *rest)


def _figures(result: Result) -> dict[str, Any]:
    return {
        **figures(result),
        "classes": len(result.per_class),
        "per_class": {name: percent(value) for name, value in result.per_class.items()},
        "working_size": result.settings["backbone"].get("size"),
    }


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "seed", "size", "workers", "cache", episodes=500)
    parser.add_argument("--backbones", nargs="+", default=["tiny", VIT_TINY])
    parser.add_argument("--sets", nargs="+", default=["voc", "coco-mini"])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--methods", nargs="+", default=["density", "auto"])
    parser.add_argument("--masks", nargs="+", default=["drawn"], choices=["drawn", "none"])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
