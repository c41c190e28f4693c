"""Runs side by side: the same episodes, paired, and the interval of the difference."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kshot.errors import SettingError
from kshot.evaluation.result import Result
from kshot.evaluation.sweep import load_results, run_name
from kshot.metrics import paired_bootstrap


@dataclass(frozen=True)
class Comparison:
    """A run beside the first one on one setting (way, shot, fold and seed)."""

    setting: str
    """Name of the run's folder, as in 1way-5shot-fold0."""
    run: str
    """The folder that was given."""
    value: float
    """The run's mIoU, 0..1."""
    difference: float | None = None
    """This run's mIoU less the first one's; None for the first."""
    low: float | None = None
    high: float | None = None
    """95 % interval of the difference."""
    facts: str = ""
    """What the run depends on and the first does otherwise."""
    warnings: tuple[str, ...] = ()
    """What to know before citing the figure."""

    @property
    def verdict(self) -> str:
        """Whether the interval excludes zero."""
        if self.low is None or self.high is None:
            return ""
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "better" if self.low > 0 else "worse"

    def summary(self) -> dict[str, Any]:
        """The comparison for JSON."""
        facts = asdict(self)
        return facts | {"remarks": facts.pop("warnings")}


def compare_runs(folders: Sequence[Path]) -> list[Comparison]:
    """Every setting that all folders have, the first folder first.

    Raises `SettingError` when they share no setting, or saw other episodes.
    """
    runs = {folder: _results(folder) for folder in folders}
    shared = [name for name in runs[folders[0]] if all(name in results for results in runs.values())]
    if not shared:
        listed = "; ".join(f"{folder}: {', '.join(results)}" for folder, results in runs.items())
        raise SettingError(f"these runs share no setting ({listed})")
    return [
        comparison
        for name in shared
        for comparison in _compare(name, [(str(folder), results[name]) for folder, results in runs.items()])
    ]


def _results(folder: Path) -> dict[str, Result]:
    results = load_results(folder)
    # A single run's folder may be called anything; its setting is what the others call it.
    if list(results) == [folder.name] and "way-" not in folder.name:
        (result,) = results.values()
        return {run_name(*(result.settings[key] for key in ("way", "shot", "fold"))): result}
    return results


def _compare(setting: str, runs: Sequence[tuple[str, Result]]) -> list[Comparison]:
    (lead, first), *others = runs
    found = [Comparison(setting, lead, first.miou, warnings=first.warnings)]
    for name, result in others:
        _check_paired(setting, (lead, first), (name, result))
        gap = paired_bootstrap(result.score, first.score)
        facts = ", ".join(_differences(first.settings, result.settings)) or "no setting differs"
        found.append(Comparison(setting, name, result.miou, gap.value, gap.low, gap.high, facts, result.warnings))
    return found


def _check_paired(setting: str, first: tuple[str, Result], second: tuple[str, Result]) -> None:
    (one, a), (two, b) = first, second
    for key in ("dataset", "digest", "split", "protocol", "way", "shot", "fold", "seed", "episodes", "resolution"):
        if a.settings[key] != b.settings[key]:
            raise SettingError(
                f"{setting}: {one} and {two} cannot be paired: {key} is {a.settings[key]} and {b.settings[key]}"
            )
    if not a.counts.same_episodes(b.counts):
        raise SettingError(
            f"{setting}: {one} and {two} did not see the same episodes; run the second on the first one's, which "
            f"{one}/{setting}/episodes.csv lists (`read_episodes`, or --episodes-from)"
        )


def _differences(first: Mapping[str, Any], second: Mapping[str, Any], within: str = "") -> list[str]:
    """Settings of `second` that `first` has otherwise; the weights' identity tells nothing beside their name."""
    told = []
    for key, value in second.items():
        before, name = first.get(key), within + key
        if isinstance(value, dict) and isinstance(before, dict):
            told += _differences(before, value, f"{name}.")
        elif before != value and "identity" not in name:
            told.append(f"{name} {before} -> {value}")
    return told
