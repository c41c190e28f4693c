"""GeoJSON: the outlines of all annotations, in longitude and latitude, for maps. Needs the extra `geo`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, LabelledImage
from kshot.formats.base import AnnotationWriter
from kshot.formats.geotiff import load_rasterio, place_of
from kshot.io.atomic import write_text
from kshot.io.names import below
from kshot.ops.components import connected_components

_DECIMALS = 9  # of a degree: a tenth of a millimetre


class Geojson(AnnotationWriter):
    """A .geojson per image, with a feature per connected part, holes kept, with class and score."""

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
        for image in annotations.images:
            crs, transform = place_of(image.path)
            data = {
                "type": "FeatureCollection",
                "coordinates": "WGS 84 longitude, latitude" if crs else "pixels x, y",
                "features": list(_features(image, crs, transform)),
            }
            write_text(below(out, folder / f"{image.stem}.geojson"), json.dumps(data, allow_nan=False) + "\n")
        return folder


def _features(image: LabelledImage, crs: Any, transform: Any) -> Iterator[dict[str, Any]]:
    rasterio = load_rasterio()
    for one in image.annotations:
        if one.ignore:
            continue
        a, b, c, d, e, f = transform[:6]
        score = {} if one.score is None else {"score": round(one.score, 6)}
        for (rows, columns), mask in connected_components(one.mask, corners=False):
            left, top = columns.start, rows.start
            place = rasterio.Affine(a, b, c + a * left + b * top, d, e, f + d * left + e * top)
            for geometry, _ in rasterio.features.shapes(mask.view(np.uint8), mask=mask, transform=place):
                if crs:
                    geometry = rasterio.warp.transform_geom(crs, "EPSG:4326", geometry, precision=_DECIMALS)
                yield {"type": "Feature", "geometry": geometry, "properties": {"class": one.label, **score}}


FORMAT = Geojson()
