"""The report of films with true masks: the figures of each object, and films to look at, chosen by rule."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from kshot.evaluation.film_folders import FilmFolder, find_films
from kshot.evaluation.films import FilmObject, FilmsResult, predicted_frames
from kshot.evaluation.runner import versions
from kshot.io.atomic import write_text
from kshot.io.images import read_image
from kshot.report.charts import bars, curves
from kshot.report.evaluation import backbone_facts
from kshot.report.qualitative import Pane, overlay_uri
from kshot.report.rendering import REPORT, render
from kshot.segmenter import Segmenter

RULE = (
    "Best, median and worst film by the mean J&F of its objects. Shown are the first true mask, which is the support, "
    "and the prediction beside the truth a third of the way, two thirds, and in the last frame that counts."
)
_MOST_BARS = 40


@dataclass(frozen=True)
class FilmPanel:
    """A film as images, and J and F over its frames."""

    rule: str
    """Why it was chosen: best, median or worst."""
    name: str
    j_and_f: float
    chart: Markup
    panes: tuple[Pane, ...]


def write_film_report(out: Path, root: Path, result: FilmsResult, segmenter: Segmenter, command: Sequence[str]) -> Path:
    """Write report.html into the folder of a run and return its path; up to three films are predicted again for it.

    root: of the films. Raises `OutputError`, and what `find_films` raises.
    """
    films = {film.name: film for film in find_films(root.expanduser())}
    memory = result.settings["memory"]
    named = sorted(((f"{one.film} {one.label}", _j_and_f([one])) for one in result.objects), key=lambda row: -row[1])
    context = {
        "settings": result.settings,
        "films": len(films),
        "objects": result.objects,
        "figures": result.figures,
        "warnings": result.warnings,
        "bars": bars(named[:_MOST_BARS]),
        "more": max(0, len(named) - _MOST_BARS),
        "panels": [_panel(rule, films[name], result, segmenter, memory) for rule, name in _chosen(result)],
        "rule": RULE,
        "command": shlex.join(command),
        "facts": {**backbone_facts(result.settings), "Memory": f"{memory} frames", **versions()},
        "everything": json.dumps(result.settings, indent=2),
    }
    write_text(out / REPORT, render("films.html.j2", context))
    return out / REPORT


def _chosen(result: FilmsResult) -> list[tuple[str, str]]:
    """(rule, film): best, median and worst, each film once."""
    names = dict.fromkeys(one.film for one in result.objects)
    ranked = sorted(names, key=lambda name: -_j_and_f(_of(result, name)))
    rules = {"best": ranked[0], "worst": ranked[-1], "median": ranked[len(ranked) // 2]}
    once = {name: rule for rule, name in reversed(rules.items())}
    return [(once[name], name) for name in ranked if name in once]


def _panel(rule: str, film: FilmFolder, result: FilmsResult, segmenter: Segmenter, memory: int) -> FilmPanel:
    own = _of(result, film.name)
    series = np.mean([one.frames for one in own], axis=0)  # (frames, 2)
    lines = [(name, [(float(n), float(row[k])) for n, row in enumerate(series, 1)]) for k, name in enumerate("JF")]
    return FilmPanel(
        rule, film.name, _j_and_f(own), curves(lines, unit="frame"), tuple(_panes(film, segmenter, memory))
    )


def _panes(film: FilmFolder, segmenter: Segmenter, memory: int) -> Iterator[Pane]:
    first, *counted = list(film.masks)[:-1]
    shown = {counted[round(share * (len(counted) - 1))]: share for share in (1 / 3, 2 / 3, 1.0)}
    numbers = [film.mask(frame) for frame in (first, *shown)]
    names = [str(label) for label in range(1, 1 + max(int(each[each < 255].max(initial=1)) for each in numbers))]
    yield Pane("support", f"shown: {first.name}", overlay_uri(read_image(first), numbers[0], names))
    for frame, found in predicted_frames(segmenter, film, memory):
        if frame in shown:
            image = read_image(frame)
            yield Pane("found", f"found: {frame.name}", overlay_uri(image, found, names))
            yield Pane("truth", f"true: {frame.name}", overlay_uri(image, film.mask(frame), names))


def _of(result: FilmsResult, name: str) -> list[FilmObject]:
    return [one for one in result.objects if one.film == name]


def _j_and_f(objects: Sequence[FilmObject]) -> float:
    return float(np.mean([(one.j.mean + one.f.mean) / 2 for one in objects]))
