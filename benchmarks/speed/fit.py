"""What fitting costs with ways and shots: seconds of one thread and the memory of a process, one process a case.

    python -m benchmarks.speed.fit --state after --out benchmarks/results/fit.json

Supports are made up, 28 x 28 patch tokens of 768 numbers as of a ViT-Base at 448: noise around one direction for the
background and one for each class, an ellipse a support. Seconds are the processor's, the median of up to three fits; a
fit of more than ten seconds is made once. The supports alone are what a process holds before it fits.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.settings import arguments, facts, write
from kshot import _plugins
from kshot.methods.base import FeatureSpec, Support
from kshot.ops.geometry import FeatureMap, Frame

CASES = ((1, 1), (1, 5), (3, 5), (10, 5), (30, 5), (1, 50))
_SIDE, _CHANNELS, _PATCH = 28, 768, 16
_LONG = 10.0


def main() -> None:
    options = _options()
    if options.case:
        print(json.dumps(_measured(options.method, *options.case)))
        return
    rows = []
    for way, shot in options.cases:
        command = [sys.executable, "-m", "benchmarks.speed.fit", "--method", options.method, "--case", f"{way}x{shot}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    if options.out:
        report = json.loads(options.out.read_text()) if options.out.is_file() else {}
        shape = {"grid": [_SIDE, _SIDE], "channels": _CHANNELS}
        report[options.state] = {"facts": facts() | {"threads": 1}, "method": options.method, **shape, "rows": rows}
        write(options.out, report)


def _measured(method: str, way: int, shot: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    task = _plugins.load("methods", method).Task
    classes, spec = (
        tuple(f"class {index}" for index in range(way)),
        FeatureSpec("made up", "", (), _SIDE * _PATCH, _PATCH),
    )
    supports, before = _supports(way, shot), _peak()
    seconds: list[float] = []
    while len(seconds) < 3 and max(seconds, default=0) < _LONG:
        started = time.process_time()
        task(classes, supports, spec)
        seconds.append(time.process_time() - started)
    found = {"fit_s": round(statistics.median(seconds), 3), "fits": len(seconds)}
    return {"way": way, "shot": shot, **found, "peak_mib": round(_peak()), "supports_mib": round(before)}


def _supports(way: int, shot: int) -> tuple[Support, ...]:
    """`shot` supports of each class."""
    rng = torch.Generator().manual_seed(0)
    frame = Frame((_SIDE * _PATCH,) * 2, (_SIDE * _PATCH,) * 2, _PATCH)
    directions = torch.randn(way + 1, _CHANNELS, generator=rng)
    places = torch.arange(_SIDE) + 0.5
    made = []
    for index in range(way * shot):
        (x, y), (across, down) = 10 + 8 * torch.rand(2, generator=rng), 5 + 5 * torch.rand(2, generator=rng)
        far = (((places - x) / across) ** 2 + ((places[:, None] - y) / down) ** 2).sqrt()
        masks = torch.zeros(way, _SIDE, _SIDE)
        masks[index % way] = ((1 - far) * 4 + 0.5).clamp(0, 1)
        parts = torch.cat([1 - masks.sum(0, keepdim=True), masks])  # (N+1, gh, gw)
        noise = torch.randn(_CHANNELS, _SIDE, _SIDE, generator=rng)
        tokens = torch.einsum("nhw,nc->chw", parts, directions) + noise
        tokens /= tokens.norm(dim=0)
        made.append(Support(FeatureMap(tokens, frame), masks, torch.ones(_SIDE, _SIDE)))
    return tuple(made)


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _case(text: str) -> tuple[int, int]:
    way, shot = text.split("x")
    return int(way), int(shot)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "out")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--cases", type=_case, nargs="+", default=list(CASES), help="Ways x shots, as in 3x5.")
    parser.add_argument("--state", default="after", help="Under which name the figures go into --out.")
    parser.add_argument("--case", type=_case, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
