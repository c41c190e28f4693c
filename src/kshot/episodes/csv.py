"""Episodes on paper: a CSV file from which others can run the same ones."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from kshot.data.base import Dataset
from kshot.episodes.sampler import Episode, Episodes, SamplerSettings
from kshot.errors import DatasetError
from kshot.io.atomic import write_text
from kshot.io.csv_rows import csv_rows, csv_text

_FIRST_LINE = "# kshot episodes 1"
_PARSERS: Mapping[Any, Callable[[str], object]] = {
    str: str,
    int: int,
    bool: "True".__eq__,
    int | None: lambda text: int(text) if text else None,
}


def write_episodes(path: Path, episodes: Episodes) -> None:
    """Write `episodes_text`. Raises `OutputError`."""
    write_text(path, episodes_text(episodes))


def episodes_text(episodes: Episodes) -> str:
    """The settings in comment lines, then a row an episode, classes by name."""
    settings = asdict(episodes.settings)
    head = [_FIRST_LINE, *(f"# {key}: {'' if value is None else value}" for key, value in settings.items())]
    rows: list[list[object]] = [[*_columns(episodes.settings)]]
    for episode in episodes:
        row: list[object] = [episode.index, episode.query]
        for class_id, present, images in zip(episode.classes, episode.present, episode.supports, strict=True):
            row += [episodes.classes[class_id - 1], int(present), *images]
        rows.append(row)
    return "".join(f"{line}\n" for line in head) + csv_text(rows)


def read_episodes(path: Path, dataset: Dataset) -> Episodes:
    """Undo `write_episodes`. Raises `DatasetError`: no such file, another data set, or a damaged row."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: a CSV of episodes was expected here ({error})") from error
    if not lines or lines[0] != _FIRST_LINE:
        raise DatasetError(f"{path}: no CSV of episodes; its first line should be {_FIRST_LINE!r}")
    head = [line for line in lines if line.startswith("# ")]
    settings = _settings(path, dict(line[2:].split(": ", 1) for line in head[1:] if ": " in line))
    _check_dataset(path, settings, dataset)
    try:
        columns, *rows = csv_rows("\n".join(lines[len(head) :])) or [[]]
    except csv.Error as error:
        raise DatasetError(f"{path}: no CSV of episodes ({error})") from error
    # Their number first: a head may ask for more columns than fit the memory.
    fits = min(settings.way, settings.shot) >= 1 and len(columns) == 2 + settings.way * (settings.shot + 2)
    if not fits or columns != _columns(settings) or not 1 <= len(rows) == settings.count:
        raise DatasetError(
            f"{path}: {len(rows)} rows, or columns, do not fit its head; it should have {settings.count}"
        )
    ids = {name: class_id for class_id, name in enumerate(dataset.classes, start=1)}
    read = tuple(_episode(path, settings, number, row, ids, dataset) for number, row in enumerate(rows))
    return Episodes(settings, dataset.classes, read.__getitem__)


def _columns(settings: SamplerSettings) -> list[str]:
    columns = ["episode", "query"]
    for n in range(1, settings.way + 1):
        columns += [f"class_{n}", f"present_{n}", *(f"support_{n}_{k}" for k in range(1, settings.shot + 1))]
    return columns


def _settings(path: Path, head: Mapping[str, str]) -> SamplerSettings:
    texts = {"fold": "", **head}  # editors cut off the blank behind an empty value
    try:
        return SamplerSettings(**{f.name: _PARSERS[f.type](texts[f.name]) for f in fields(SamplerSettings)})  # type: ignore[arg-type]
    except (KeyError, ValueError) as error:
        wanted = ", ".join(field.name for field in fields(SamplerSettings))
        raise DatasetError(f"{path}: its head should give {wanted}; {error} is missing or wrong") from error


def _check_dataset(path: Path, settings: SamplerSettings, dataset: Dataset) -> None:
    if settings.dataset != dataset.name:
        raise DatasetError(f"{path}: these are episodes of {settings.dataset}, but the data set is {dataset.name}")
    for split in (settings.split, settings.support_split):
        if split not in dataset.splits:
            raise DatasetError(f"{path}: drawn from the list {split!r}, which {dataset.name} does not have here")
    here = dataset.digest(settings.split, settings.support_split)
    if here != settings.digest:
        raise DatasetError(
            f"{path}: drawn on another copy of {settings.dataset}: its classes or the image ids of {settings.split} "
            f"differ (digest {settings.digest}, here {here})"
        )


def _episode(
    path: Path, settings: SamplerSettings, number: int, row: list[str], ids: Mapping[str, int], dataset: Dataset
) -> Episode:
    size, line = settings.shot + 2, f"{path}: episode {number}"
    expected = 2 + settings.way * size
    if len(row) != expected or row[0] != str(number):
        raise DatasetError(f"{line}: expected number {number} and {expected} columns, got {row[:1]}, {len(row)}")
    query, ways = row[1], [row[start : start + size] for start in range(2, expected, size)]
    supports = tuple(tuple(way[2:]) for way in ways)
    images = [query, *(image for way in supports for image in way)]
    unknown = [image for image in images if image not in dataset.samples] + [w[0] for w in ways if w[0] not in ids]
    if unknown or query in images[1:]:
        raise DatasetError(f"{line}: {unknown or query} is not in the data set, or is query and support at once")
    return Episode(number, query, tuple(ids[way[0]] for way in ways), supports, tuple(way[1] == "1" for way in ways))
