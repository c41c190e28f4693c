"""What measurements share: where the development data lies, their options, and how figures are written."""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kshot
from kshot.data.base import Dataset, load_dataset
from kshot.evaluation import Result


def shared(path: str) -> Path:
    """A path in the folder of development data beside the checkout."""
    return Path(__file__).resolve().parents[2] / "shared" / path


VOC = shared("data/VOCdevkit/VOC2012")
VIT_TINY = str(shared("weights/vit-tiny-patch16-224"))
DOMAINS = ("cwfid", "neuseg", "granular", "firesmoke")
SETS = {
    "voc": VOC,
    **{name: shared(f"data/{name}") for name in ("coco-mini", "wbc", "crack")},
    **{name: shared(f"data/domains/{name}") for name in DOMAINS},
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "root": {"type": Path, "default": VOC, "help": "Folder of VOC2012."},
    "backbone": {"default": VIT_TINY, "help": "Short name, Hub id or local folder."},
    "episodes": {"type": int, "help": "Episodes of a run."},
    "seed": {"type": int, "default": 0},
    "size": {"type": int, "help": "Working size in pixels, the backbone's own by default."},
    "workers": {"type": int, "default": 1, "help": "Processes."},
    "cache": {"type": Path, "help": "Folder of features, kept between calls."},
    "out": {"type": Path, "help": "JSON file for the figures."},
}


def arguments(description: str | None, *names: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with the options `names`, and those of `defaults` with other defaults than usual."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in (*names, *defaults):
        option = _OPTIONS[name] | ({"default": defaults[name]} if name in defaults else {})
        parser.add_argument(f"--{name}", **option)
    return parser


def open_set(name: str) -> Dataset:
    """One of `SETS`."""
    return load_dataset("voc" if name == "voc" else "auto", SETS[name])


def facts() -> dict[str, Any]:
    """Versions and the kind of machine."""
    return {
        "kshot": kshot.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def figures(result: Result) -> dict[str, Any]:
    """The figures of an evaluation, in percent but for the calibration error."""
    interval = result.confidence_interval
    return {
        "miou": percent(result.miou),
        "interval": [percent(interval.low), percent(interval.high)],
        "strict_miou": percent(result.strict_miou),
        "presence_accuracy": percent(result.presence_accuracy),
        "fb_iou": percent(result.fb_iou),
        "boundary_f": percent(result.boundary),
        "calibration_error": round(result.calibration_error, 4),
    }


def percent(value: float) -> float:
    """With two decimals."""
    return round(100 * value, 2)


def write(path: Path | None, report: dict[str, Any]) -> None:
    """Write a report as JSON; None writes nothing."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
