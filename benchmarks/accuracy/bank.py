"""Many references: what a coreset of their tokens changes, and what 1,000 of them cost, beside 5.

    python -m benchmarks.accuracy.bank --root ../shared/data/wbc --label 2 --shots 60 --queries 12

IoU of one class with all tokens of the shots and with their coreset. Then the same shots, each with a little noise on
its features, until there are 1,000: seconds of one prediction relative to 5 shots, interleaved, least of five; what one
more shot takes beside fitting all anew, and the megabytes that the supports hold.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch.nn import functional as F

import kshot
from kshot.io.images import read_image, read_mask
from kshot.methods.base import Support, Task

MODULES = ("kshot.methods._support_tokens.MANY", "kshot.methods.density.MANY")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--label", type=int, default=1)
    parser.add_argument("--shots", type=int, default=60)
    parser.add_argument("--queries", type=int, default=12)
    parser.add_argument("--out", type=Path, help="write JSON here")
    given = parser.parse_args()
    images = sorted((given.root / "images").iterdir())
    masks = {path.stem: path for path in (given.root / "masks").iterdir()}
    seg = kshot.Segmenter(device="cpu")
    shots = [
        kshot.Shot(path, mask=(labels == given.label).astype(np.uint8), label="it")
        for path in images[given.queries :]
        if ((labels := read_mask(masks[path.stem])) == given.label).any()
    ][: given.shots]
    supports = seg.encode(shots, ("it",))
    coreset, five = _task(seg, supports), _task(seg, supports[:5])
    with patch(MODULES[0], 10**9), patch(MODULES[1], 10**9):
        full = _task(seg, supports)
    many = _noisy(supports, 1000)
    started = time.perf_counter()
    thousand = _task(seg, many)
    joined = time.perf_counter()
    more = thousand.with_shots(shots[:1], seg)
    growth = {"fit 1000": round(joined - started, 1), "one more": round(time.perf_counter() - joined, 1)}
    growth["megabytes of supports"] = round(sum(map(_bytes, more.supports)) / 1e6)
    rows: dict[str, list[float]] = {"five": [], "full": [], "coreset": [], "thousand": [], "full with coreset": []}
    for path in images[: given.queries]:
        image, truth = read_image(path), read_mask(masks[path.stem]) == given.label
        features = seg.features(image)
        tasks = {"five": five, "full": full, "coreset": coreset, "thousand": thousand}
        found = {name: seg.decide(task, features, image).mask > 0 for name, task in tasks.items()}
        for name, mask in found.items():
            rows[name].append(_iou(mask, truth))
        rows["full with coreset"].append(_iou(found["full"], found["coreset"]))
    facts = {name: round(float(np.mean(values)), 4) for name, values in rows.items()}
    seconds = _seconds(seg, {"five": five, "thousand": thousand, "full": full}, read_image(images[0]))
    found_all = {"mean IoU": facts, "relative seconds": seconds, "growth": growth, "load": os.getloadavg()}
    print(json.dumps(found_all, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found_all, indent=1) + "\n")


def _task(seg: kshot.Segmenter, supports: tuple[Support, ...]) -> Task:
    task: Task = seg.method.Task(("it",), supports, seg.feature_spec, seg.settings)
    return task


def _bytes(support: Support) -> int:
    tensors = [support.features.features, support.masks, support.valid_mask, support.token_sums]
    tensors += list(vars(support.pixels).values()) if support.pixels is not None else []
    return sum(tensor.nbytes for tensor in tensors)


def _noisy(supports: tuple[Support, ...], count: int) -> tuple[Support, ...]:
    """So many supports: the given ones again and again with noise of a twentieth of a token's length."""
    rng = torch.Generator().manual_seed(0)
    made = []
    for index in range(count):
        support = supports[index % len(supports)]
        values = support.features.features
        noise = torch.randn(values.shape, generator=rng) * (0.05 / values.shape[0] ** 0.5)
        made.append(replace(support, features=replace(support.features, features=F.normalize(values + noise, dim=0))))
    return tuple(made)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def _seconds(seg: kshot.Segmenter, tasks: dict[str, Task], image: np.ndarray) -> dict[str, float]:
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(5):
        for name, task in tasks.items():
            started = time.perf_counter()
            seg.predict(task, image)
            best[name] = min(best[name], time.perf_counter() - started)
    return {name: round(value / best["five"], 3) for name, value in best.items()}


if __name__ == "__main__":
    main()
