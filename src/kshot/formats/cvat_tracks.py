"""CVAT for video 1.1: objects of a film as tracks of polygons, an XML for each film. CVAT tracks no masks."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from kshot.annotations.films import Film, films_of, tracked
from kshot.annotations.model import DEFAULT_EXPORT, Annotation, AnnotationSet, Export, as_objects
from kshot.formats.base import AnnotationWriter
from kshot.formats.cvat import pairs, xml_meta, xml_text
from kshot.io.atomic import atomic_path
from kshot.io.names import below
from kshot.ops.polygons import bridged, rings


class CvatTracks(AnnotationWriter):
    """An .xml for each film, with a polygon for each object and frame."""

    output = "cvat_tracks"

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/cvat_tracks/<stem>.xml; returns the folder.

        Every frame in which an object is found is a key frame; behind each run of such frames it is outside. Holes and
        further parts are bridged to the outline. Raises `OutputError`.
        """
        whole = as_objects(annotations)
        for film in films_of(whole):
            path = below(out, out / self.output / f"{film.stem}.xml")
            with atomic_path(path) as beside, beside.open("w", encoding="utf-8") as file:
                file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
                file.write(xml_text(path, xml_meta(whole.classes)))
                for track in _tracks(film, export.tolerance):
                    file.write(xml_text(path, track))
                file.write("</annotations>\n")
        return out / self.output


def _tracks(film: Film, tolerance: float) -> Iterator[Element]:
    found: dict[int, list[tuple[int, Annotation]]] = {}
    numbers = tracked(image.annotations for image in film.frames)
    for place, (image, of_image) in enumerate(zip(film.frames, numbers, strict=True)):
        for one, number in zip(image.annotations, of_image, strict=True):
            if number:
                found.setdefault(number, []).append((place, one))
    for number, shapes in sorted(found.items()):
        track = Element("track", id=str(number), label=shapes[0][1].label, source="auto")
        for index, (place, one) in enumerate(shapes):
            left, top, mask = one.crop
            points = pairs((bridged(rings(mask, tolerance)) + np.array([left, top])).tolist())
            _polygon(track, film.number(place), points, outside=False)
            hidden = index + 1 == len(shapes) or shapes[index + 1][0] > place + 1
            if hidden and place + 1 < len(film.frames):
                _polygon(track, film.number(place + 1), points, outside=True)
        yield track


def _polygon(track: Element, frame: int, points: str, *, outside: bool) -> None:
    facts = {"frame": str(frame), "keyframe": "1", "outside": str(int(outside)), "occluded": "0", "z_order": "0"}
    SubElement(track, "polygon", facts | {"points": points})


FORMAT = CvatTracks()
