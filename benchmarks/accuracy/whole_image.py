"""Does a whole image do as a prompt? Whole image against its salient region against its mask, on the same episodes.

python -m benchmarks.accuracy.whole_image --out benchmarks/results/whole_image_voc.json
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.accuracy import salience
from benchmarks.settings import arguments, facts, figures, write
from kshot.data.base import load_dataset
from kshot.evaluation import Result, evaluate
from kshot.segmenter import Segmenter

PROMPTS: dict[str, dict[str, Any]] = {
    "whole image, token": {"prompt": "whole", "token": True},
    "whole image, mean of cells": {"prompt": "whole", "token": False},
    "salient region": {"prompt": "object"},
    "mask": {"prompt": "mask"},
}


def main() -> None:
    options = _options()
    salience.remember()
    data = load_dataset(options.data, options.root)
    rows = []
    for name, settings in PROMPTS.items():
        segmenter = Segmenter(
            backbone=options.backbone,
            method="image-prompt",
            method_settings=settings,
            refiner=options.refiner,
            size=options.size,
        )
        for way in options.ways:
            for shot in options.shots:
                result = evaluate(
                    segmenter,
                    data,
                    way=way,
                    shot=shot,
                    episodes=options.episodes,
                    seed=options.seed,
                    protocol=options.protocol,
                    drop_small=True,
                    workers=options.workers,
                    cache=options.cache,
                )
                rows.append(_row(name, way, shot, result))
                print(_line(rows[-1]), flush=True)
        # After each prompt, so that a stopped run keeps what it has.
        report = {"facts": facts(), "data": options.data, "remarks": list(result.warnings), "rows": rows}
        write(options.out, report)


def _row(prompt: str, way: int, shot: int, result: Result) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "way": way,
        "shot": shot,
        **figures(result),
        "classes": len(result.per_class),
        "settings": dict(result.settings) | {"data": None, "backbone": _without_path(result.settings["backbone"])},
    }


def _without_path(backbone: dict[str, Any]) -> dict[str, Any]:
    return backbone | {"backbone": Path(backbone["backbone"]).name}


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['prompt']:28} {row['way']}-way {row['shot']}-shot  mIoU {row['miou']:.1f} "
        f"[{row['interval'][0]:.1f}, {row['interval'][1]:.1f}], strict {row['strict_miou']:.1f}, "
        f"FB-IoU {row['fb_iou']:.1f}, presence {row['presence_accuracy']:.1f}, {row['classes']} classes"
    )


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "root", "backbone", "seed", "workers", "cache", "out", episodes=300, size=512)
    parser.add_argument("--data", default="voc")
    parser.add_argument("--refiner", default="none")
    parser.add_argument("--protocol", default="fs-cs")
    parser.add_argument("--ways", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    return parser.parse_args()


if __name__ == "__main__":
    main()
