"""The figure gate of the inference engines: mIoU on development sets beside torch in float32, on the same episodes.

    python -m benchmarks.accuracy.engines --out benchmarks/results/engines.json

It ends with exit code 1 where an engine is more than `--within` points away from float32 on a set. A run that is
stopped goes on where it was.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.settings import arguments, facts, open_set, percent, write
from kshot.backbones.base import load_backbone
from kshot.evaluation import evaluate
from kshot.features import accelerate, precision_of
from kshot.features.engines import agreement_with
from kshot.segmenter import Segmenter

REFERENCE = "torch"


def main() -> None:
    options = _options()
    report: dict[str, Any] = {"facts": facts(), "backbone": Path(options.backbone).name, "rows": []}
    if options.out and options.out.is_file():
        report = json.loads(options.out.read_text())
    for name in options.sets:
        for engine in (REFERENCE, *options.engines):
            if not any((row["data"], row["engine"]) == (name, engine) for row in report["rows"]):
                report["rows"].append(_row(name, engine, options))
                print(report["rows"][-1], flush=True)
                write(options.out, report)
    far = [line for name in options.sets for line in _too_far(report["rows"], name, options.within)]
    print("\n".join(far) or f"all engines are within {options.within} points of mIoU of {REFERENCE}")
    sys.exit(bool(far))


def _row(name: str, engine: str, options: argparse.Namespace) -> dict[str, Any]:
    reference = load_backbone(options.backbone, device="cpu")
    backbone = accelerate(reference, engine)
    result = evaluate(
        Segmenter(backbone=backbone, size=options.size),
        open_set(name),
        way=1,
        shot=1,
        protocol="hsnet",
        episodes=options.episodes,
        seed=options.seed,
        drop_small=True,
        workers=1,
    )
    agreement = agreement_with(reference, backbone.encode)
    return {
        "data": name,
        "engine": engine,
        "precision": precision_of(backbone),
        "episodes": len(result.rows),
        "miou": percent(result.miou),
        "presence_accuracy": percent(result.presence_accuracy),
        "cosine": round(agreement.cosine, 6),
        "neighbours": percent(agreement.neighbours),
    }


def _too_far(rows: list[dict[str, Any]], name: str, within: float) -> list[str]:
    miou = {row["engine"]: row["miou"] for row in rows if row["data"] == name}
    return [
        f"{name}: {engine} {value} against {miou[REFERENCE]} of {REFERENCE}"
        for engine, value in miou.items()
        if abs(value - miou[REFERENCE]) > within
    ]


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "seed", "size", "out", backbone="tiny", episodes=200)
    parser.add_argument("--engines", nargs="+", default=["openvino", "autocast"])
    parser.add_argument("--sets", nargs="+", default=["voc", "coco-mini"])
    parser.add_argument("--within", type=float, default=0.3, help="Points of mIoU.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
