"""An episode, the plan that it comes from, and both on paper: a CSV from which others can run the same."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from kshot.data.base import Dataset
from kshot.errors import DatasetError
from kshot.io.atomic import write_text

_FIRST_LINE = "# kshot episodes 1"


@dataclass(frozen=True)
class Episode:
    """One task: N classes with K supports each, and a query.

    classes: the ways' class ids in the data set. supports: for each way its K image ids. present: for each way
    whether the query's label map holds it.
    """

    index: int
    query: str
    classes: tuple[int, ...]
    supports: tuple[tuple[str, ...], ...]
    present: tuple[bool, ...]


@dataclass(frozen=True)
class Plan:
    """All that the episodes of a run depend on, beside numpy. digest: of the data set's ids (`Dataset.digest`)."""

    dataset: str
    split: str
    support_split: str
    protocol: str
    way: int
    shot: int
    count: int
    seed: int
    fold: int | None
    min_area: int
    allow_repeats: bool
    drop_small: bool
    digest: str


def write(path: Path, plan: Plan, episodes: Iterable[Episode], names: tuple[str, ...]) -> None:
    """The plan in comment lines, then a row an episode, classes by name. Raises `OutputError`."""
    buffer = io.StringIO()
    for line in (_FIRST_LINE, *(f"# {key}: {'' if value is None else value}" for key, value in asdict(plan).items())):
        buffer.write(line + "\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_columns(plan))
    for episode in episodes:
        row: list[object] = [episode.index, episode.query]
        for class_id, here, images in zip(episode.classes, episode.present, episode.supports, strict=True):
            row += [names[class_id - 1], int(here), *images]
        writer.writerow(row)
    write_text(path, buffer.getvalue())


def read(path: Path, dataset: Dataset) -> tuple[Plan, tuple[Episode, ...]]:
    """Undo `write`. Raises `DatasetError`: no such file, another data set, or a damaged row."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: a CSV of episodes was expected here ({error})") from error
    if not lines or lines[0] != _FIRST_LINE:
        raise DatasetError(f"{path}: no CSV of episodes; its first line should be {_FIRST_LINE!r}")
    heads = [line for line in lines if line.startswith("# ")]
    plan = _plan(path, dict(line[2:].split(": ", 1) for line in heads[1:] if ": " in line))
    _check_dataset(path, plan, dataset)
    ids = {name: class_id for class_id, name in enumerate(dataset.classes, start=1)}
    rows = list(csv.reader(lines[len(heads) :]))
    if not rows or rows[0] != _columns(plan) or len(rows) != plan.count + 1:
        raise DatasetError(
            f"{path}: {len(rows) - 1} rows, or columns, do not fit its head; it should have {plan.count}"
        )
    return plan, tuple(_episode(path, plan, number, row, ids, dataset) for number, row in enumerate(rows[1:]))


def _columns(plan: Plan) -> list[str]:
    ways = range(1, plan.way + 1)
    per_way = ([f"class_{n}", f"present_{n}", *(f"support_{n}_{k + 1}" for k in range(plan.shot))] for n in ways)
    return ["episode", "query", *(name for names in per_way for name in names)]


def _plan(path: Path, values: Mapping[str, str]) -> Plan:
    try:
        numbers = {key: int(values[key]) for key in ("way", "shot", "count", "seed", "min_area")}
        words = {key: values[key] for key in ("dataset", "split", "support_split", "protocol", "digest")}
        flags = {key: values[key] == "True" for key in ("allow_repeats", "drop_small")}
        fold = int(values["fold"]) if values.get("fold") else None
        return Plan(**words, **numbers, **flags, fold=fold)  # type: ignore[arg-type]
    except (KeyError, ValueError) as error:
        wanted = ", ".join(field.name for field in fields(Plan))
        raise DatasetError(f"{path}: its head should give {wanted}; {error} is missing or wrong") from error


def _check_dataset(path: Path, plan: Plan, dataset: Dataset) -> None:
    if plan.dataset != dataset.name:
        raise DatasetError(f"{path}: these are episodes of {plan.dataset}, but the data set is {dataset.name}")
    for split in (plan.split, plan.support_split):
        if split not in dataset.splits:
            raise DatasetError(f"{path}: drawn from the list {split!r}, which {dataset.name} does not have here")
    here = dataset.digest(plan.split, plan.support_split)
    if here != plan.digest:
        raise DatasetError(
            f"{path}: drawn on another copy of {plan.dataset}: its classes or the image ids of {plan.split} differ "
            f"(digest {plan.digest}, here {here})"
        )


def _episode(path: Path, plan: Plan, number: int, row: list[str], ids: Mapping[str, int], dataset: Dataset) -> Episode:
    size, line = plan.shot + 2, f"{path}: episode {number}"
    if len(row) != 2 + plan.way * size or row[0] != str(number):
        raise DatasetError(
            f"{line}: expected number {number} and {2 + plan.way * size} columns, got {row[:1]}, {len(row)}"
        )
    ways = [row[2 + n * size : 2 + (n + 1) * size] for n in range(plan.way)]
    supports = tuple(tuple(way[2:]) for way in ways)
    unknown = [image for image in (row[1], *(i for images in supports for i in images)) if image not in dataset.items]
    unknown += [way[0] for way in ways if way[0] not in ids]
    if unknown or any(row[1] in images for images in supports):
        raise DatasetError(f"{line}: {unknown or row[1]} is not in the data set, or is query and support at once")
    return Episode(number, row[1], tuple(ids[way[0]] for way in ways), supports, tuple(way[1] == "1" for way in ways))
