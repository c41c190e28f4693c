"""Runs side by side: the same episodes, paired, and the interval of the difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kshot.errors import SettingError
from kshot.evaluation.result import Result
from kshot.evaluation.sweep import load_lines
from kshot.metrics import paired_bootstrap


@dataclass(frozen=True)
class Pair:
    """A run beside the first one on one setting. difference: run - first, with its 95 % interval; None for the first.

    facts: what the run depends on and the first does otherwise.
    """

    setting: str
    run: str
    value: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    facts: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether the interval excludes zero."""
        if self.low is None or self.high is None:
            return ""
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "better" if self.low > 0 else "worse"


def compare_runs(folders: Sequence[Path]) -> list[Pair]:
    """Every setting that all folders have, the first folder first.

    Raises `SettingError` when they share no setting, or saw other episodes.
    """
    runs = [_results(folder) for folder in folders]
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    if not shared:
        listed = "; ".join(f"{folder}: {', '.join(run)}" for folder, run in zip(folders, runs, strict=True))
        raise SettingError(f"these runs share no setting ({listed})")
    return [
        pair
        for name in shared
        for pair in _pairs(name, {str(folder): run[name] for folder, run in zip(folders, runs, strict=True)})
    ]


def _results(folder: Path) -> dict[str, Result]:
    results = {name: result for line in load_lines(folder) for name, result in line.runs.items()}
    # A single run's folder may be called anything; its setting is what the others call it.
    if list(results) == [folder.name]:
        (result,) = results.values()
        return {folder.name if "way-" in folder.name else _name(result.settings): result}
    return results


def _name(settings: Any) -> str:
    fold = "" if settings["fold"] is None else f"-fold{settings['fold']}"
    return f"{settings['way']}way-{settings['shot']}shot{fold}"


def _pairs(setting: str, runs: dict[str, Result]) -> list[Pair]:
    (lead, first), *others = runs.items()
    pairs = [Pair(setting, lead, first.miou, remarks=first.remarks)]
    for name, result in others:
        _check_paired(setting, (lead, first), (name, result))
        found = paired_bootstrap(result.score, first.score)
        facts = ", ".join(_differences(first, result)) or "no setting differs"
        pairs.append(Pair(setting, name, result.miou, found.value, found.low, found.high, facts, result.remarks))
    return pairs


def _check_paired(setting: str, first: tuple[str, Result], second: tuple[str, Result]) -> None:
    (one, a), (two, b) = first, second
    for key in ("dataset", "digest", "split", "protocol", "way", "shot", "fold", "seed", "episodes", "resolution"):
        if a.settings[key] != b.settings[key]:
            raise SettingError(
                f"{setting}: {one} and {two} cannot be paired: {key} is {a.settings[key]} and {b.settings[key]}"
            )
    if not a.counts.same_episodes(b.counts):
        raise SettingError(
            f"{setting}: {one} and {two} did not see the same episodes; run the second with "
            f"--episodes-from {one}/{setting}/episodes.csv"
        )


def _differences(first: Result, second: Result) -> list[str]:
    told = []
    for key, value in second.settings.items():
        before = first.settings.get(key)
        if before != value and isinstance(value, dict) and isinstance(before, dict):
            told += [
                f"{key}.{part} {before.get(part)} -> {new}" for part, new in value.items() if before.get(part) != new
            ]
        elif before != value:
            told.append(f"{key} {before} -> {value}")
    return [line for line in told if "identity" not in line]
