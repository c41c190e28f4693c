"""1-way mIoU of methods on a data set, with everything that the figures depend on.

python -m benchmarks.accuracy.one_way --out benchmarks/results/one_way_voc.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.settings import facts, shared
from kshot.data.base import load_dataset
from kshot.evaluation import Result, evaluate
from kshot.segmenter import Segmenter

# Classes with six images or more can be drawn at 5 shots: the mean over them compares 1 shot with 5 on equal terms.
_ENOUGH = 6


def main() -> None:
    options = _options()
    data = load_dataset(options.data, options.root)
    counts = {c: len({pair.image for pair in data.pairs() if pair.class_id == c}) for c in data.fold_classes()}
    rows = []
    for method in options.methods:
        segmenter = Segmenter(backbone=options.backbone, method=method, refiner=options.refiner, size=options.size)
        for shot in options.shots:
            result = evaluate(
                segmenter,
                data,
                shot=shot,
                episodes=options.episodes,
                seed=options.seed,
                drop_small=True,
                workers=options.workers,
                cache=options.cache,
            )
            rows.append(_row(method, shot, result, counts))
            print(_line(rows[-1]), flush=True)
    report = {"facts": facts(), "data": options.data, "remarks": list(result.remarks), "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def _row(method: str, shot: int, result: Result, counts: dict[int, int]) -> dict[str, Any]:
    interval, parts = result.confidence_interval, result.score.parts
    enough = [value for label, value in parts.items() if counts[int(label)] >= _ENOUGH]
    return {
        "method": method,
        "shot": shot,
        "miou": round(100 * result.miou, 2),
        "interval": [round(100 * interval.low, 2), round(100 * interval.high, 2)],
        "classes": len(parts),
        f"miou_of_classes_with_{_ENOUGH}_images": round(100 * sum(enough) / len(enough), 2),
        "fb_iou": round(100 * result.fb_iou, 2),
        "boundary_f": round(100 * result.boundary, 2),
        "calibration_error": round(result.calibration_error, 4),
        "per_class": {name: round(100 * value, 1) for name, value in result.per_class.items()},
        "settings": dict(result.settings) | {"data": None, "backbone": _without_path(result.settings["backbone"])},
    }


def _without_path(backbone: dict[str, Any]) -> dict[str, Any]:
    return backbone | {"backbone": Path(backbone["backbone"]).name}


def _line(row: dict[str, Any]) -> str:
    enough = row[f"miou_of_classes_with_{_ENOUGH}_images"]
    return (
        f"{row['method']:12} {row['shot']}-shot  mIoU {row['miou']:.1f} "
        f"[{row['interval'][0]:.1f}, {row['interval'][1]:.1f}] "
        f"over {row['classes']} classes, {enough:.1f} over those with {_ENOUGH} images; FB-IoU {row['fb_iou']:.1f}, "
        f"boundary F {row['boundary_f']:.1f}, ECE {row['calibration_error']:.3f}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="voc")
    parser.add_argument("--root", type=Path, default=shared("data/VOCdevkit/VOC2012"))
    parser.add_argument("--backbone", default=str(shared("weights/vit-tiny-patch16-224")))
    parser.add_argument("--methods", nargs="+", default=["density", "prototype"])
    parser.add_argument("--refiner", default="edges")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
