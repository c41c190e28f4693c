"""GeoJSON: the outlines of all annotations, in longitude and latitude, for maps. Files need the extra `geo`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, as_objects
from kshot.errors import SettingError
from kshot.formats.base import AnnotationWriter
from kshot.io.atomic import write_text
from kshot.io.georeference import PIXELS, Georeference, Transform, georeference_of, load_rasterio
from kshot.io.ground import reference_system
from kshot.io.names import below
from kshot.io.paths import page_of
from kshot.objects import Instance, Polygon

_DECIMALS = 9  # of a degree: a tenth of a millimetre
Rings = list[list[list[float]]]


class Geojson(AnnotationWriter):
    """A .geojson per image, with a feature per object, holes kept, with class, score, areas and source."""

    output = "geojson"
    holds = frozenset({"scores"})

    def prepare(self) -> None:
        """Raise `OutputError` when rasterio is missing."""
        load_rasterio()

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/geojson/<stem>.geojson; returns the folder.

        Coordinates are WGS 84, as RFC 7946 wants them; of an image without a place on earth they are pixels, and the
        member `coordinates` says so. Raises `OutputError`.
        """
        folder = out / self.output
        for image in as_objects(annotations).images:
            instances = (one.instance for one in image.annotations if not one.ignore)
            place = georeference_of(image.path or image.part_of, image.size_hw[0], page_of(image.name))
            data = document_of(instances, place, export.tolerance, image.name)
            write_text(below(out, folder / f"{image.stem}.geojson"), json.dumps(data, allow_nan=False) + "\n")
        return folder


def document_of(
    instances: Iterable[Instance], place: Georeference, tolerance: float, source: str = ""
) -> dict[str, Any]:
    """Objects as a FeatureCollection; source: the name of their image, kept with each where it is given.

    Without a reference system coordinates stay as the transform makes them. Raises `OutputError` without rasterio for
    one.
    """
    pixels = "pixels x, y" if place.transform == PIXELS else "x, y"
    return {
        "type": "FeatureCollection",
        "coordinates": "WGS 84 longitude, latitude" if place.crs else pixels,
        "features": [_feature(one, place, tolerance, source) for one in instances],
    }


def place_of(crs: Any, transform: Sequence[float] | None, height: int) -> Georeference:
    """The place of an image of `height` rows, as `Prediction.to_geojson` takes it. Raises `SettingError`."""
    if transform is None:
        return Georeference(height=height)
    if len(transform) < 6:
        raise SettingError(f"transform {tuple(transform)}: expected six numbers a, b, c, d, e, f from pixels")
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return Georeference(None if crs is None else reference_system(crs), (a, b, c, d, e, f), height)


def properties_of(one: Instance, place: Georeference, source: str = "") -> dict[str, str | int | float]:
    """source, class, score, area_px and area_m2 of an object, as far as they are known."""
    known: dict[str, str | int | float] = {"source": source} if source else {}
    known["class"] = one.label
    if one.score is not None:
        known["score"] = round(one.score, 6)
    known["area_px"] = one.area
    if place.pixel_areas is not None:
        known["area_m2"] = float(f"{one.area_over(place.pixel_areas):.9g}")
    return known


def polygons_of(one: Instance, transform: Transform, tolerance: float) -> list[Rings]:
    """The rings of each part of an object: closed, the outer one of positive area, holes of negative."""
    return [_closed(polygon, transform) for polygon in one.polygons(tolerance)]


def _feature(one: Instance, place: Georeference, tolerance: float, source: str) -> dict[str, Any]:
    parts = polygons_of(one, place.transform, tolerance)
    geometry = (
        {"type": "Polygon", "coordinates": parts[0]}
        if len(parts) == 1
        else {"type": "MultiPolygon", "coordinates": parts}
    )
    if place.crs:
        geometry = load_rasterio().warp.transform_geom(place.crs, "EPSG:4326", geometry, precision=_DECIMALS)
    return {"type": "Feature", "geometry": geometry, "properties": properties_of(one, place, source)}


def _closed(polygon: Polygon, transform: Transform) -> Rings:
    a, b, c, d, e, f = transform
    matrix = np.array([[a, d], [b, e]], np.float64)
    rings = []
    for ring in (polygon.outer, *polygon.holes):
        placed = np.concatenate([ring, ring[:1]]) @ matrix + [c, f]
        # Where y points down, what runs with the clock on the screen has a positive area; a map's transform turns it.
        rings.append((placed[::-1] if a * e - b * d < 0 else placed).tolist())
    return rings


FORMAT = Geojson()
