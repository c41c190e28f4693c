"""What a run is: run.json, and beside it episodes.csv and files.csv, which it refers to by their SHA-256.

All of it is checked when it is read, because the figures are computed from it and an interrupted run goes on by it.
"""

import csv
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from kshot.data.base import Dataset, FileHash
from kshot.episodes.csv import episodes_text
from kshot.episodes.sampler import Episodes
from kshot.errors import SettingError
from kshot.io.atomic import write_text
from kshot.io.csv_rows import csv_rows, csv_text

RUN, EPISODES, FILES = "run.json", "episodes.csv", "files.csv"
_COLUMNS = ("path", "bytes", "sha256")
# Settings that come from the data set itself: where these alone differ, its files say why.
_OF_THE_DATA = {"digest", "episodes", "count"}


def write_run(folder: Path, run: Mapping[str, Any], data: Dataset, episodes: Episodes) -> None:
    """Begin a run: its lists, then run.json, which refers to them.

    Raises `OutputError`, `DatasetError`, and `SettingError` where other lists of these names lie, which no run made.
    """
    lists = {EPISODES: episodes_text(episodes), FILES: _files_text(_files(data, episodes))}
    for name, text in lists.items():
        path = folder / name
        if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):  # a killed run left its own
            raise SettingError(f"{path}: is of no run here, and would be replaced; choose another folder, or move it")
    for name, text in lists.items():
        write_text(folder / name, text)
    known = {name: _sha256(text.encode()) for name, text in lists.items()}
    write_text(folder / RUN, json.dumps({**run, "sha256": known}, indent=2) + "\n")


def check_same_run(folder: Path, run: Mapping[str, Any], data: Dataset, episodes: Episodes) -> None:
    """Raise `SettingError` unless a folder's run has these facts and episodes, over files that are as they were."""
    there = read_run(folder / RUN)
    differ = _differences(run, there)
    if set(differ) - _OF_THE_DATA:
        raise _other_settings(folder, differ)
    if not isinstance(there.get("sha256"), dict):
        raise SettingError(
            f"{folder / RUN}: of a kshot that kept no list of the data set's files, so they may be others by now; "
            "choose another folder"
        )
    change = _first_change(_read_files(folder, there), _files(data, episodes))
    if change:
        raise SettingError(
            f"{folder}: the data set has changed since this run began: {change}; undo that, or choose another folder"
        )
    if differ:
        raise _other_settings(folder, differ)
    if _sha256(episodes_text(episodes).encode()) != there["sha256"].get(EPISODES):
        raise SettingError(
            f"{folder}: holds a run of other episodes under the same settings; its own are in {EPISODES} "
            "(`read_episodes`, or --episodes-from); choose another folder"
        )


def read_run(path: Path) -> dict[str, Any]:
    """A run.json. Raises `SettingError` that says what is wrong with it."""
    run = read_json_object(path)
    fault = _fault(run, _FACTS) or _fault(run["settings"], _SETTINGS) or _fault(run["settings"]["backbone"], _BACKBONE)
    for key, check in _OPTIONAL.items():
        if not fault and key in run["settings"]:
            fault = _fault(run["settings"], {key: check})
    if fault:
        raise damaged(path, fault)
    wrong = [c for c in run["classes"] if c > len(run["names"])]
    if wrong or len(set(run["classes"])) != len(run["classes"]):
        raise damaged(path, f"expected 'classes' as different numbers in 1..{len(run['names'])}")
    if run["settings"]["way"] > len(run["classes"]):
        raise damaged(path, f"expected 'way' in 1..{len(run['classes'])}, got {short(run['settings']['way'])}")
    return run


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file of an evaluation. Raises `SettingError` for anything else."""
    try:
        value = strict_json(path.read_bytes())
        # A lone surrogate is valid JSON, but no text that a report could be written with.
        json.dumps(value, ensure_ascii=False).encode()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, f"expected an object, got {short(value)}")
    return value


def strict_json(data: bytes) -> Any:
    """What JSON holds. Raises `ValueError`, also for NaN, Infinity and numbers beyond a float."""
    try:
        return json.loads(data, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def damaged(path: Path, fault: str) -> SettingError:
    """The error that says what is wrong with a file of an evaluation."""
    return SettingError(f"{path}: damaged, or not written by `kshot eval` ({fault}); run it into another folder")


def _files(data: Dataset, episodes: Episodes) -> tuple[FileHash, ...]:
    images = {image for e in episodes for image in (e.query, *(i for way in e.supports for i in way))}
    return data.file_hashes((episodes.settings.split, episodes.settings.support_split), images)


def _files_text(files: Sequence[FileHash]) -> str:
    return csv_text([_COLUMNS, *files])


def _read_files(folder: Path, run: Mapping[str, Any]) -> dict[str, FileHash]:
    """{path: file} of files.csv. Raises `SettingError` unless it is the file that run.json refers to."""
    path = folder / FILES
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror or error}); choose another folder") from error
    if _sha256(data) != run["sha256"].get(FILES):
        raise damaged(path, f"its contents are not those that {RUN} refers to")
    try:
        rows = csv_rows(data.decode())
        return {name: FileHash(name, int(size), sha256) for name, size, sha256 in rows[1:]}
    except (ValueError, csv.Error) as error:
        raise damaged(path, str(error)) from error


def _first_change(before: Mapping[str, FileHash], now: Sequence[FileHash]) -> str:
    """The first file, by path, that is not as it was; empty when all are."""
    here = {file.path: file for file in now}
    for path in sorted(before.keys() | here.keys()):
        if path not in here:
            return f"{path} is missing"
        if path not in before:
            return f"{path} is new"
        old, new = before[path], here[path]
        if old.size != new.size or (old.sha256 and new.sha256 and old.sha256 != new.sha256):
            return f"{path} is another file"
    return ""


def _differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """Settings on which two runs disagree; the same weights and data may lie in another place."""

    def facts(run: Mapping[str, Any]) -> dict[str, Any]:
        settings = run["settings"] | {"backbone": run["settings"]["backbone"] | {"backbone": ""}}
        return {**settings, "kshot version": run["versions"].get("kshot")}

    mine, theirs = facts(one), facts(two)
    return [key for key in mine | theirs if mine.get(key) != theirs.get(key)]


def _other_settings(folder: Path, differ: Sequence[str]) -> SettingError:
    return SettingError(f"{folder}: holds a run with other settings ({', '.join(differ)}); choose another folder")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


_Check = tuple[str, Callable[[Any], bool]]


def _fault(values: Any, checks: Mapping[str, _Check]) -> str:
    """What is wrong with an object of run.json; empty when nothing is."""
    for key, (expected, fits) in checks.items():
        if not isinstance(values, dict) or key not in values or not fits(values[key]):
            return (
                f"expected {key!r} as {expected}, got {short(values.get(key) if isinstance(values, dict) else values)}"
            )
    return ""


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**53


def _all_text(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


_TEXT: _Check = ("text", lambda value: isinstance(value, str))
_OBJECT: _Check = ("an object", lambda value: isinstance(value, dict))
_FLAG: _Check = ("true or false", lambda value: isinstance(value, bool))
_COUNT: _Check = ("a whole number from 1 on", lambda value: _is_whole(value, 1))
_NUMBER: _Check = ("a whole number from 0 on", lambda value: _is_whole(value, 0))
_MAYBE: _Check = ("a whole number or null", lambda value: value is None or _is_whole(value, 0))
_FACTS: Mapping[str, _Check] = {
    "settings": _OBJECT,
    "versions": _OBJECT,
    "names": ("a list of texts", _all_text),
    "classes": ("numbers from 1 on", lambda v: isinstance(v, list) and bool(v) and all(_is_whole(c, 1) for c in v)),
    "remarks": ("a list of texts", _all_text),
}
_SETTINGS: Mapping[str, _Check] = {
    **dict.fromkeys(("protocol", "dataset", "digest", "split", "support_split", "dtype", "method", "refiner"), _TEXT),
    **dict.fromkeys(("resolution", "ignored"), _TEXT),
    **dict.fromkeys(("backbone", "method_settings", "refiner_settings"), _OBJECT),
    **dict.fromkeys(("way", "shot", "episodes", "count"), _COUNT),
    **dict.fromkeys(("seed", "min_area"), _NUMBER),
    **dict.fromkeys(("allow_repeats", "drop_small"), _FLAG),
    "fold": _MAYBE,
}
_OPTIONAL: Mapping[str, _Check] = {
    "instances": _TEXT,
    "sizes": ("numbers from 1 on", lambda v: isinstance(v, list) and bool(v) and all(_is_whole(c, 1) for c in v)),
}
_BACKBONE: Mapping[str, _Check] = {"backbone": _TEXT, "identity": _TEXT, "size": _COUNT}
