"""Areas over time: a CSV with a row for each frame of a film, or slice of a stack, and class."""

from collections.abc import Iterator
from pathlib import Path

from kshot.annotations.films import Film, areas, films_of
from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, as_objects
from kshot.formats.base import AnnotationWriter
from kshot.io.atomic import write_text
from kshot.io.csv_rows import csv_text
from kshot.io.videos import frame_rate

_HEADER = ("film", "frame", "seconds", "class", "objects", "area_px", "fraction")


class Areas(AnnotationWriter):
    """areas.csv: film, frame from 0, its time in seconds where it is of a video, class, objects, area and fraction."""

    output = "areas.csv"

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/areas.csv, a row of zeros where a class is not found; returns its path. Raises `OutputError`."""
        whole = as_objects(annotations)
        rows = (row for film in films_of(whole) for row in _rows(film, whole.classes))
        write_text(out / self.output, csv_text([_HEADER, *rows]))
        return out / self.output


def _rows(film: Film, classes: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
    rate = frame_rate(film.path)
    for place, image in enumerate(film.frames):
        number, (height, width) = film.number(place), image.size_hw
        seconds = "" if rate is None else round(number / rate, 4)
        for name, (objects, pixels) in zip(classes, areas(image, classes).tolist(), strict=True):
            yield film.name, number, seconds, name, objects, pixels, round(pixels / (height * width), 6)


FORMAT = Areas()
