"""Films with true masks: one frame shows the objects, and J and F say how well the others were labelled.

As the semi-supervised task of DAVIS 2017 has it: the first true mask is the support, each object is measured by itself,
and its first and last frame do not count. One object is one class, and no other film is seen.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot import _plugins
from kshot._version import __version__
from kshot.errors import DatasetError, EmptyMaskError, SettingError
from kshot.evaluation.film_folders import FilmFolder, find_films
from kshot.evaluation.run_file import read_json_object
from kshot.features.engines import precision_of
from kshot.io.atomic import write_text
from kshot.io.csv_rows import csv_text
from kshot.io.images import read_image
from kshot.io.jsonl import LineWriter, read_lines
from kshot.memory import DEFAULT_FRAMES, FrameMemory, check_memory
from kshot.metrics.films import FrameStatistics, contour_accuracy, region_similarity
from kshot.prompts import labelled_support
from kshot.segmenter import Segmenter
from kshot.types import IGNORE, Shot, SupportSet, check_same_size

RUN, ROWS, RESULTS, TABLE = "run.json", "films.jsonl", "results.json", "results.csv"
Row = dict[str, Any]
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class FilmObject:
    """One object of one film."""

    film: str
    label: int
    """In the true masks."""
    j: FrameStatistics
    """Region similarity."""
    f: FrameStatistics
    """Contour accuracy."""
    frames: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    """Both of each frame that counts, in order."""


@dataclass(frozen=True)
class FilmsResult:
    """The figures of films: means over objects, all of one weight, as DAVIS has it."""

    objects: tuple[FilmObject, ...] = field(repr=False)
    """By film, then by label."""
    settings: dict[str, Any]
    """All that the figures depend on."""
    warnings: tuple[str, ...] = ()
    """What to know before citing the figures."""

    @cached_property
    def figures(self) -> dict[str, float]:
        """{"j_and_f", "j_mean", "j_recall", "j_decay", "j_flicker", "f_mean", ...}; see `FrameStatistics`."""
        found = {
            f"{measure}_{name}": float(np.mean([getattr(getattr(one, measure), name) for one in self.objects]))
            for measure in ("j", "f")
            for name in ("mean", "recall", "decay", "flicker")
        }
        return {"j_and_f": (found["j_mean"] + found["f_mean"]) / 2, **found}

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        each = [{"film": o.film, "object": o.label, "j": asdict(o.j), "f": asdict(o.f)} for o in self.objects]
        return {"settings": self.settings, **self.figures, "objects": each, "remarks": list(self.warnings)}


def evaluate_films(
    segmenter: Segmenter,
    root: str | Path,
    *,
    memory: int = DEFAULT_FRAMES,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> FilmsResult:
    """Label each film of a folder from its first true mask, and compare the frames with the others.

    root: a folder as `find_films` reads it. memory: earlier frames that count, 0..64. out: folder of the run; one that
    was stopped there goes on with the next film. progress: called with films done, films in all, and J&F so far.
    Raises `DatasetError`, `SettingError` (also when `out` holds another run) and `OutputError`.
    """
    films = find_films(Path(root).expanduser())
    settings, rows, writer = _settings(segmenter, films, memory), list[Row](), None
    if out is not None:
        rows, writer = _opened(Path(out), {"settings": settings, "kshot": __version__}, films)
    done = {row["film"] for row in rows}
    for film in films:
        if film.name not in done:
            rows.append(_row(segmenter, film, memory))
            if writer is not None:
                writer.append(rows[-1])
        if progress is not None:
            progress(len(rows), len(films), FilmsResult(_objects(rows), {}).figures["j_and_f"])
    order = {film.name: place for place, film in enumerate(films)}
    rows.sort(key=lambda row: order[row["film"]])
    result = FilmsResult(_objects(rows), settings, tuple(told for row in rows for told in row["warnings"]))
    if out is not None:
        _write(Path(out), result)
    return result


def predicted_frames(segmenter: Segmenter, film: FilmFolder, memory: int) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """Each frame of a film with the labels (h, w) that are found in it, from the first true mask up to the last one."""
    first = film.mask(film.frames[0])
    labels = [int(label) for label in np.unique(first) if label not in (0, IGNORE)]
    return _predictions(segmenter, film, first, _shown(segmenter, film, first, labels)[0], memory)


def _settings(segmenter: Segmenter, films: Sequence[FilmFolder], memory: int) -> dict[str, Any]:
    """All that the figures depend on. Raises `SettingError` for a memory out of range."""
    check_memory(memory)
    if segmenter.chooses_size:
        raise SettingError(
            "size 'auto' (--size) leaves supports out in turn, and a film has one, its first true mask; "
            "give a size in pixels"
        )
    settings = {
        "protocol": "davis",
        "backbone": asdict(segmenter.feature_spec),
        "precision": precision_of(segmenter.backbone),
        "method": _plugins.name_of(segmenter.method),
        "method_settings": asdict(segmenter.settings),
        "refiner": _plugins.name_of(segmenter.refiner),
        "refiner_settings": asdict(segmenter.refiner_settings),
        "memory": memory,
        "films": len(films),
        "digest": _digest(films),
    }
    return dict(json.loads(json.dumps(settings | segmenter.method.Task.source_facts())))


def _digest(films: Sequence[FilmFolder]) -> str:
    """Of the true masks, and the names and sizes of the frames: the same copy gives the same 16 letters."""
    digest = hashlib.sha256()
    for film in films:
        for frame in film.frames:
            mask = film.masks[frame].read_bytes() if frame in film.masks else b""
            digest.update(f"{film.name}/{frame.name} {frame.stat().st_size} {len(mask)}\n".encode() + mask)
    return digest.hexdigest()[:16]


def _opened(out: Path, run: dict[str, Any], films: Sequence[FilmFolder]) -> tuple[list[Row], LineWriter]:
    """The rows that are there, and the file that takes more. Raises `SettingError` where another run lies."""
    path, names = out / RUN, {film.name for film in films}
    if path.exists():
        there = read_json_object(path)
        if there != run:
            raise SettingError(f"{out}: holds a run with other settings, or over other films; choose another folder")
    else:
        theirs = [name for name in (ROWS, RESULTS, TABLE) if (out / name).exists()]
        if theirs:
            raise SettingError(f"{out}: holds {', '.join(theirs)}, which no run made; choose another folder")
        write_text(path, json.dumps(run, indent=2) + "\n")
    rows = read_lines(out / ROWS, lambda row: row.get("film") in names and _is_row(row))
    return list({row["film"]: row for row in rows}.values()), LineWriter(out / ROWS, compact=True)


def _is_row(row: Row) -> bool:
    """Whether a line is what `_row` makes; one that is not counts as not there, and its film is done again."""
    objects, warnings = row.get("objects"), row.get("warnings")
    return isinstance(warnings, list) and isinstance(objects, list) and bool(objects) and all(map(_is_object, objects))


def _is_object(values: Any) -> bool:
    if not isinstance(values, dict) or type(values.get("label")) is not int:
        return False
    series = values.get("j"), values.get("f")
    numbers = [each for each in series if isinstance(each, list) and each]
    return len(numbers) == 2 and all(type(value) in (int, float) and 0 <= value <= 1 for value in chain(*numbers))


def _row(segmenter: Segmenter, film: FilmFolder, memory: int) -> Row:
    """J and F of each object in each frame that counts."""
    first = film.mask(film.frames[0])
    labels = [int(label) for label in np.unique(first) if label not in (0, IGNORE)]
    if not labels:
        raise DatasetError(f"{film.masks[film.frames[0]]}: the first true mask of {film.name} shows no object")
    measured: dict[int, list[tuple[float, float]]] = {label: [] for label in labels}
    counted = set(list(film.masks)[1:-1])
    shown, warnings = _shown(segmenter, film, first, labels)
    later = set[int]()
    for frame, found in _predictions(segmenter, film, first, shown, memory):
        if frame in counted:
            true = film.mask(frame)
            check_same_size(found.shape, true.shape, f"{film.masks[frame]}: the mask of {frame}")
            later |= set(np.unique(true).tolist()) - {0, IGNORE, *labels}
            for label in labels:
                pair = found == label, true == label, true == IGNORE
                measured[label].append((region_similarity(*pair), contour_accuracy(*pair)))
    if later:
        warnings.append(f"{film.name}: objects {sorted(later)} are first shown later, and left out")
    each = [{"label": label, "j": [j for j, _ in m], "f": [f for _, f in m]} for label, m in measured.items()]
    return {"film": film.name, "objects": each, "warnings": warnings}


def _shown(
    segmenter: Segmenter, film: FilmFolder, first: NDArray[np.uint8], labels: Sequence[int]
) -> tuple[list[int], list[str]]:
    """The objects whose first mask can be learned from, and warnings on the others."""
    image = read_image(film.frames[0], max_pixels=segmenter.max_pixels, selection=segmenter.band_selection)
    features = segmenter.features(image)
    shown, warnings = [], []
    for label in labels:
        try:
            own = (first == label).astype(np.uint8)
            labelled_support(own, {1: "it"}, ("it",), features, str(film.masks[film.frames[0]]))
            shown.append(label)
        except EmptyMaskError:
            warnings.append(f"{film.name}: object {label} covers no patch in its first frame, and counts as not found")
    return shown, warnings


def _predictions(
    segmenter: Segmenter, film: FilmFolder, first: NDArray[np.uint8], shown: Sequence[int], memory: int
) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """Each frame with its label map (h, w), from the first true mask up to the last one."""
    frames = film.frames[: film.frames.index(list(film.masks)[-1]) + 1]
    if not shown:
        yield from ((frame, np.zeros_like(first)) for frame in frames)
        return
    kept = np.where(np.isin(first, [*shown, IGNORE]), first, 0).astype(np.uint8)
    shot = Shot(frames[0], mask=kept, label={label: str(label) for label in shown})
    table = np.array([0, *shown], np.uint8)
    past = FrameMemory(segmenter.fit(SupportSet([shot], [str(label) for label in shown])), memory)
    for frame in frames:
        yield frame, table[segmenter.predict_frame(past, frame).mask]


def _objects(rows: Sequence[Row]) -> tuple[FilmObject, ...]:
    return tuple(
        FilmObject(
            row["film"],
            one["label"],
            FrameStatistics.of(one["j"]),
            FrameStatistics.of(one["f"]),
            tuple(zip(one["j"], one["f"], strict=True)),
        )
        for row in rows
        for one in row["objects"]
    )


def _write(out: Path, result: FilmsResult) -> None:
    """results.json, and results.csv with a line an object. Raises `OutputError`."""
    write_text(out / RESULTS, json.dumps(result.summary(), indent=2) + "\n")
    names = [f.name for f in fields(FrameStatistics)]
    head = ["film", "object", *(f"{measure}_{name}" for measure in "jf" for name in names)]
    lines = [
        [one.film, one.label, *(round(v, 6) for v in (*astuple(one.j), *astuple(one.f)))] for one in result.objects
    ]
    write_text(out / TABLE, csv_text([head, *lines]))
