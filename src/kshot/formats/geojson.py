"""GeoJSON: the outlines of all parts, in longitude and latitude, for maps. Needs the extra `geo`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kshot.annotations.model import Export, LabelledImage, LabelTree
from kshot.formats import _geo
from kshot.io.atomic import write_text
from kshot.ops.components import connected_components

FOLDER_OUT = "geojson"
_DECIMALS = 9  # of a degree: a tenth of a millimetre


def prepare() -> None:
    """Raise `OutputError` before a run rather than at its end when rasterio is missing."""
    _geo.load()


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/geojson/<stem>.geojson; returns the folder.

    A feature per connected part, holes kept, with class and score. Coordinates are WGS 84, as RFC 7946 wants them; of
    an image without a place on earth they are pixels, and the member `coordinates` says so. Raises `OutputError`.
    """
    folder = out / FOLDER_OUT
    for image in tree.images:
        crs, transform = _geo.place_of(image.path)
        data = {
            "type": "FeatureCollection",
            "coordinates": "WGS 84 longitude, latitude" if crs else "pixels x, y",
            "features": list(_features(image, crs, transform)),
        }
        write_text(folder / f"{image.stem}.geojson", json.dumps(data, allow_nan=False) + "\n")
    return folder


def _features(image: LabelledImage, crs: Any, transform: Any) -> Iterator[dict[str, Any]]:
    rasterio = _geo.load()
    for part in image.parts:
        if part.ignore:
            continue
        a, b, c, d, e, f = transform[:6]
        score = {} if part.score is None else {"score": round(part.score, 6)}
        for (rows, columns), mask in connected_components(part.mask, corners=False):
            left, top = columns.start, rows.start
            place = rasterio.Affine(a, b, c + a * left + b * top, d, e, f + d * left + e * top)
            for geometry, _ in rasterio.features.shapes(mask.view(np.uint8), mask=mask, transform=place):
                if crs:
                    geometry = rasterio.warp.transform_geom(crs, "EPSG:4326", geometry, precision=_DECIMALS)
                yield {"type": "Feature", "geometry": geometry, "properties": {"class": part.label, **score}}
