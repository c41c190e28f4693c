"""MOT 1.1: boxes of numbered objects over the frames of a film, as the MOT Challenge and CVAT have them."""

from collections.abc import Iterator
from pathlib import Path

from kshot.annotations import rle
from kshot.annotations.films import Film, films_of, tracked
from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, as_objects
from kshot.formats.base import AnnotationWriter, refuse_names
from kshot.io.atomic import write_text
from kshot.io.names import below


class Mot(AnnotationWriter):
    """gt/gt.txt for each film: frame and object from 1, left, top, width, height, score, class from 1, visibility."""

    output = "mot"
    holds = frozenset({"scores"})

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/mot/<stem>/gt/gt.txt and labels.txt, whose line is a class's number; returns the folder.

        An object keeps its number as long as its mask overlaps (`annotations.films.tracked`). Raises `OutputError`.
        """
        whole, folder = as_objects(annotations), out / self.output
        refuse_names(folder, [name for name in whole.classes if len(name.splitlines()) != 1])
        for film in films_of(whole):
            place = below(out, folder / film.stem / "gt")
            write_text(place / "gt.txt", "".join(_lines(film, whole.classes)))
            write_text(place / "labels.txt", "".join(f"{name}\n" for name in whole.classes))
        return folder


def _lines(film: Film, classes: tuple[str, ...]) -> Iterator[str]:
    numbers = tracked(image.annotations for image in film.frames)
    for place, (image, of_image) in enumerate(zip(film.frames, numbers, strict=True)):
        for one, number in zip(image.annotations, of_image, strict=True):
            if number:
                left, top, width, height = (round(side) for side in rle.box_xywh(one.rle))
                score = 1 if one.score is None else round(one.score, 4)
                where = f"{left},{top},{width},{height}"
                yield f"{film.number(place) + 1},{number},{where},{score},{classes.index(one.label) + 1},1\n"


FORMAT = Mot()
