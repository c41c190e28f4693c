"""Overlay films: what a video shows, with its classes marked as overlays have them. Needs the extra `video` (PyAV)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.films import Film, films_of
from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export
from kshot.errors import OutputError
from kshot.formats.base import AnnotationWriter
from kshot.formats.overlay import draw
from kshot.io import limits
from kshot.io.atomic import atomic_path
from kshot.io.images import read_image
from kshot.io.names import below
from kshot.io.pages_and_frames import read_images
from kshot.io.rasters import BandSelection
from kshot.io.videos import frame_rate, is_video, write_video
from kshot.types import Prediction

_RATE = 10.0  # frames a second of what is no video


class FilmOverlays(AnnotationWriter):
    """An .mp4 for each film, stack, or folder of images."""

    output = "films"

    def prepare(self) -> None:
        """Raise `OutputError` when PyAV is missing."""
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise OutputError("overlay films need PyAV; pip install 'kshot[video]'") from error

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/films/<stem>.mp4 of as many frames as have labels; returns the folder.

        A frame is in memory at a time. Frames of another size than the first are brought to it. Raises `OutputError`
        and `ImageReadError`.
        """
        for film in films_of(annotations):
            path = below(out, out / self.output / f"{film.stem}.mp4")
            rate = frame_rate(film.path)
            step = film.number(1) - film.number(0) if rate is not None and len(film.frames) > 1 else 1
            with atomic_path(path) as beside:
                write_video(beside, _drawn(film, annotations.classes), (rate or _RATE) / max(1, step))
        return out / self.output


def _drawn(film: Film, classes: tuple[str, ...]) -> Iterator[NDArray[np.uint8]]:
    """The frames of a film, (h, w, 3), with their classes marked."""
    by_name = {frame.name: frame for frame in film.frames}
    images: Iterator[tuple[str, NDArray[np.uint8]]]
    if film.path is None:
        images = ((frame.name, read_image(frame.path)) for frame in film.frames if frame.path)
    else:
        most = None if not is_video(film.path) else limits.PIXELS.value
        images = read_images(dict.fromkeys(by_name, film.path), BandSelection(), most)
    nothing = dict.fromkeys(classes, 0.0)
    for name, image in images:
        labels = by_name[name].labels(classes)
        labels[labels > len(classes)] = 0  # nobody decided there
        scores = np.broadcast_to(np.float32(0), (len(classes) + 1, *labels.shape))
        yield np.asarray(draw(Prediction(labels, scores, nothing, classes, image)))


FORMAT = FilmOverlays()
