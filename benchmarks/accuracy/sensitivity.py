"""How far mIoU moves when each number among the settings of `auto`, and of its `density`, is halved and doubled.

    python -m benchmarks.accuracy.sensitivity --out benchmarks/results/sensitivity.json

Episodes are encoded once. Within an episode, leave-one-out, tasks and their scores are kept between settings that do
not change them, so a setting costs little more than its own step. Masks are without a refiner. A run that is stopped
goes on where it was.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import fields
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.settings import SETS, arguments, facts, open_set, percent, write
from kshot.episodes.sampler import draw_episodes
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache
from kshot.methods import density
from kshot.methods._leave_one_out import EnsembleMember, leave_one_out
from kshot.methods.auto import task as auto
from kshot.methods.auto.background_prior import prior_weight
from kshot.methods.base import Task
from kshot.metrics.counts import EpisodeCounts, IoUCounts
from kshot.metrics.scores import fss_miou
from kshot.segmenter import Segmenter

_KEPT = "kappa", "pool"  # a number of the kernel that fits the features, and one of speed


class Value(NamedTuple):
    """A setting at half or double its default; method is "auto" or "density", and "" for the defaults."""

    method: str = ""
    name: str = "default"
    value: float = 0.0


def values(names: list[str] | None) -> list[Value]:
    """The defaults, and every number among the settings at half and double."""
    found = [Value()]
    for method, settings in (("auto", auto.Settings()), ("density", density.Settings())):
        numbers = {f.name: getattr(settings, f.name) for f in fields(settings) if type(f.default) in (int, float)}
        for name, value in numbers.items():
            if name not in _KEPT and (not names or name in names):
                whole = isinstance(value, int)
                found += [Value(method, name, changed) for changed in (value // 2 if whole else value / 2, 2 * value)]
    return found


def main() -> None:
    parser = arguments(__doc__, "cache", "size", "seed", "backbone", "out", episodes=50)
    parser.add_argument("--settings", nargs="+", help="names; by default all numbers")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5])
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"facts": facts(), "rows": []}
    if options.out is not None and options.out.is_file():
        report = json.loads(options.out.read_text())
    segmenter = Segmenter(backbone=options.backbone, size=options.size, refiner="none")
    name = segmenter.feature_spec.backbone.rpartition("/")[2]
    done = {(row["backbone"], row["size"], row["data"], row["shot"]) for row in report["rows"]}
    for data in options.sets:
        for shot in options.shots:
            if (name, segmenter.size, data, shot) in done:
                continue
            mious = _measured(segmenter, data, shot, values(options.settings), options)
            row = {"backbone": name, "size": segmenter.size, "data": data, "shot": shot, "episodes": options.episodes}
            report["rows"].append(row | {"miou": mious})
            report["largest"] = _largest(report["rows"])
            write(options.out, report)
            print(json.dumps(row), flush=True)


def _measured(segmenter: Segmenter, name: str, shot: int, chosen: list[Value], options: Any) -> dict[str, float]:
    """mIoU in percent of each value, over the same episodes."""
    data = open_set(name)
    runner = EpisodeRunner(segmenter, data, FeatureCache(options.cache))
    counts: dict[str, list[EpisodeCounts]] = {}
    for episode in draw_episodes(data, "hsnet", 1, shot, options.episodes, options.seed, drop_small=True):
        supports, names = runner.supports(episode), tuple(data.classes[c - 1] for c in episode.classes)
        features, image = runner.features(episode.query), runner.image(episode.query)
        truth = runner.labels(episode.query, episode.classes)
        with _remembered():
            for value in chosen:
                with _density(value):
                    task = auto.Task(names, supports, segmenter.feature_spec, _auto(value))
                    mask = segmenter.decide(task, features, image).mask
                found = EpisodeCounts.of(episode.index, episode.classes, IoUCounts.from_masks(mask, truth, 1))
                label = f"{value.method} {value.name} {value.value:g}" if value.method else value.name
                counts.setdefault(label, []).append(found)
    return {label: percent(fss_miou(EpisodeCounts.merge(found)).value) for label, found in counts.items()}


def _auto(value: Value) -> auto.Settings:
    changed: dict[str, Any] = {value.name: value.value} if value.method == "auto" else {}
    return auto.Settings(**changed)


def _density(value: Value) -> AbstractContextManager[Any]:
    """`auto` makes its density by the default settings: those are the changed ones meanwhile."""
    changed: dict[str, Any] = {value.name: value.value}
    if value.method != "density":
        return nullcontext()
    settings = density.Settings(**changed)
    return patch.object(density, "Settings", lambda: settings)


@contextmanager
def _remembered() -> Iterator[None]:
    """What an episode computes again and again is computed once: leave-one-out, tasks of members, and their scores."""
    known: dict[Any, Any] = {}
    kept: list[Any] = []  # arguments that keys name by their identity must live as long

    def once(function: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            name = (function, key(*given))
            if name not in known:
                kept.append(given)
                known[name] = function(*given)
            return known[name]

        return call

    def ids(things: Any) -> tuple[int, ...]:
        return tuple(map(id, things))

    def of_member(member: EnsembleMember) -> Any:
        return member.task, member.settings, id(member.learned)

    def of_search(supports: Any, members: Any, *rest: Any) -> Any:
        return ids(supports), tuple(map(of_member, members)), rest

    score = once(Task.score, lambda task, features: (id(task), id(features)))
    plain = Task.score

    def scored(task: Task, features: Any, image: Any = None) -> Any:
        return plain(task, features, image) if isinstance(task, auto.Task) else score(task, features)

    with ExitStack() as stack:
        for owner, name, changed in (
            (auto, "leave_one_out", once(leave_one_out, of_search)),
            (auto, "prior_weight", once(prior_weight, lambda supports, *rest: (ids(supports), rest[1:]))),
            (EnsembleMember, "fit", once(EnsembleMember.fit, lambda member, rest: (of_member(member), ids(rest)))),
            (Task, "score", scored),
        ):
            stack.enter_context(patch.object(owner, name, changed))
        yield


def _largest(rows: list[dict[str, Any]]) -> dict[str, float]:
    """For each setting the largest movement of mIoU, in points, over all sets, shots and both values."""
    moved: dict[str, float] = {}
    for row in rows:
        for label, miou in row["miou"].items():
            name = " ".join(label.split()[:2])
            moved[name] = max(moved.get(name, 0.0), abs(float(np.round(miou - row["miou"]["default"], 2))))
    return dict(sorted(moved.items(), key=lambda item: item[1]))


if __name__ == "__main__":
    main()
