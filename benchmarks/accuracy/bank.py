"""Many references: what a coreset of their tokens changes, and what 1,000 of them cost, beside 5.

    python -m benchmarks.accuracy.bank --root ../shared/data/wbc --label 2 --shots 60 --queries 12

IoU of one class with all tokens of the shots, with their coreset, and with what a task keeps of them (`Task.keep`: some
supports and a bank), of all at once and one by one. Then the same shots, each with a little noise on its features,
until there are 1,000: seconds of one prediction relative to 5 shots, interleaved, least of five; seconds of the fit and
of one more shot; megabytes of the supports that the task keeps, beside those of all, and of the task file.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch.nn import functional as F

import kshot
from kshot.io.images import read_image, read_mask
from kshot.methods.base import Support, Task

THOUSAND = 1000
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
    supports, keep = seg.encode(shots, ("it",)), seg.method.Task.keep
    one_by_one: tuple[Support, ...] = ()
    for support in supports:
        one_by_one = keep([*one_by_one, support])
    given_as = {"five": supports[:5], "coreset": supports, "kept": keep(supports), "one by one": one_by_one}
    tasks = {name: _task(seg, each) for name, each in given_as.items()}
    with patch(MODULES[0], 10**9), patch(MODULES[1], 10**9):
        tasks["full"] = _task(seg, supports)
    started = time.perf_counter()
    tasks["thousand"] = _task(seg, keep(_noisy(supports, THOUSAND)))
    joined = time.perf_counter()
    more = tasks["thousand"].with_shots(shots[:1], seg)
    growth = {"fit 1000": round(joined - started, 1), "one more": round(time.perf_counter() - joined, 1)}
    growth |= {f"MB of {name}": _megabytes(task.supports) for name, task in (("full", tasks["full"]), ("more", more))}
    with tempfile.TemporaryDirectory() as folder:
        growth["MB of the task file"] = round(more.save(Path(folder) / "task").stat().st_size / 1e6, 1)
    rows: dict[str, list[float]] = {name: [] for name in [*tasks, "full with coreset", "full with kept"]}
    for path in images[: given.queries]:
        image, truth = read_image(path), read_mask(masks[path.stem]) == given.label
        features = seg.features(image)
        found = {name: seg.decide(task, features, image).mask > 0 for name, task in tasks.items()}
        for name, mask in found.items():
            rows[name].append(_iou(mask, truth))
        for name in ("coreset", "kept"):
            rows[f"full with {name}"].append(_iou(found["full"], found[name]))
    facts = {name: round(float(np.mean(values)), 4) for name, values in rows.items()}
    timed = {name: tasks[name] for name in ("five", "thousand", "full")}
    seconds = _seconds(seg, timed, read_image(images[0]))
    found_all = {"mean IoU": facts, "relative seconds": seconds, "growth": growth, "load": os.getloadavg()}
    print(json.dumps(found_all, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found_all, indent=1) + "\n")


def _task(seg: kshot.Segmenter, supports: tuple[Support, ...]) -> Task:
    task: Task = seg.method.Task(("it",), supports, seg.feature_spec, seg.settings)
    return task


def _megabytes(supports: tuple[Support, ...]) -> float:
    tensors = [tensor for support in supports for tensor in _tensors(support)]
    return round(sum(tensor.nbytes for tensor in tensors) / 1e6, 1)


def _tensors(support: Support) -> list[torch.Tensor]:
    own = [support.features.features, support.masks, support.valid_mask, support.token_sums]
    own += list(vars(support.pixels).values()) if support.pixels is not None else []
    return own + [tensor for crop in support.crops for tensor in _tensors(crop)]


def _noisy(supports: tuple[Support, ...], count: int) -> Iterator[Support]:
    """So many supports: the given ones again and again with noise of a twentieth of a token's length."""
    rng = torch.Generator().manual_seed(0)
    for index in range(count):
        support = supports[index % len(supports)]
        yield replace(_moved(support, rng), crops=tuple(_moved(crop, rng) for crop in support.crops))


def _moved(support: Support, rng: torch.Generator) -> Support:
    values = support.features.features
    noise = torch.randn(values.shape, generator=rng) * (0.05 / values.shape[0] ** 0.5)
    return replace(support, features=replace(support.features, features=F.normalize(values + noise, dim=0)))


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
