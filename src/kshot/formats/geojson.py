"""GeoJSON: the outlines of all annotations, in longitude and latitude, for maps. Files need the extra `geo`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, as_objects
from kshot.formats.base import AnnotationWriter
from kshot.formats.geotiff import load_rasterio, place_of
from kshot.io.atomic import write_text
from kshot.io.names import below
from kshot.objects import Instance, Polygon

_DECIMALS = 9  # of a degree: a tenth of a millimetre


class Geojson(AnnotationWriter):
    """A .geojson per image, with a feature per object, holes kept, with class, score, area in pixels and source."""

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
            data = document_of(instances, *place_of(image.path), export.tolerance)
            for feature in data["features"]:
                feature["properties"]["source"] = image.name
            write_text(below(out, folder / f"{image.stem}.geojson"), json.dumps(data, allow_nan=False) + "\n")
        return folder


def document_of(
    instances: Iterable[Instance], crs: Any, transform: Sequence[float] | None, tolerance: float
) -> dict[str, Any]:
    """Objects as a FeatureCollection.

    crs: what rasterio takes as a reference system; None leaves the coordinates as the transform makes them. transform:
    the six numbers of rasterio's, from pixels; None leaves pixels. Raises `OutputError` without rasterio for a crs.
    """
    coordinates = "WGS 84 longitude, latitude" if crs else "pixels x, y" if _is_identity(transform) else "x, y"
    return {
        "type": "FeatureCollection",
        "coordinates": coordinates,
        "features": [_feature(one, crs, transform, tolerance) for one in instances],
    }


def _is_identity(transform: Sequence[float] | None) -> bool:
    return transform is None or tuple(transform[:6]) == (1, 0, 0, 0, 1, 0)


def _feature(one: Instance, crs: Any, transform: Sequence[float] | None, tolerance: float) -> dict[str, Any]:
    parts = [_closed(polygon, transform) for polygon in one.polygons(tolerance)]
    geometry = (
        {"type": "Polygon", "coordinates": parts[0]}
        if len(parts) == 1
        else {"type": "MultiPolygon", "coordinates": parts}
    )
    if crs:
        geometry = load_rasterio().warp.transform_geom(crs, "EPSG:4326", geometry, precision=_DECIMALS)
    score = {} if one.score is None else {"score": round(one.score, 6)}
    return {"type": "Feature", "geometry": geometry, "properties": {"class": one.label, "area_px": one.area, **score}}


def _closed(polygon: Polygon, transform: Sequence[float] | None) -> list[list[list[float]]]:
    """The rings of a polygon as GeoJSON has them: closed, the outer one of positive area, holes of negative."""
    a, b, c, d, e, f = (1, 0, 0, 0, 1, 0) if transform is None else transform[:6]
    matrix = np.array([[a, d], [b, e]], np.float64)
    rings = []
    for ring in (polygon.outer, *polygon.holes):
        placed = np.concatenate([ring, ring[:1]]) @ matrix + [c, f]
        # Where y points down, what runs with the clock on the screen has a positive area; a map's transform turns it.
        rings.append((placed[::-1] if a * e - b * d < 0 else placed).tolist())
    return rings


FORMAT = Geojson()
