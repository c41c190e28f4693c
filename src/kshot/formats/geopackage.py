"""GeoPackage: the outlines of all objects of a run in one file, each in its image's own reference system, for GIS.

Needs the extra `geo`: rasterio tells the place of an image, pyogrio (GDAL) writes.
Source: OGC 12-128r19, GeoPackage 1.4.
"""

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kshot.annotations.model import DEFAULT_EXPORT, AnnotationSet, Export, LabelledImage, as_objects
from kshot.errors import OutputError
from kshot.formats.base import AnnotationWriter
from kshot.formats.geojson import Rings, polygons_of, properties_of
from kshot.io.atomic import atomic_path
from kshot.io.georeference import Georeference, georeference_of, load_rasterio
from kshot.io.paths import page_of

_POLYGON, _MULTIPOLYGON = 3, 6  # of well-known binary (OGC 06-103r4, section 8.2)
# Of when the tables were changed last: the same objects give the same bytes.
_DATE = "2000-01-01T00:00:00.000Z"
_NO_IMAGE = LabelledImage("none", (1, 1))  # a run of none leaves a file without objects
_FIELDS = {"source": object, "class": object, "score": np.float64, "area_px": np.int64, "area_m2": np.float64}


class Geopackage(AnnotationWriter):
    """One .gpkg, with a feature per object, holes kept, with source, class, score and areas."""

    output = "objects.gpkg"
    holds = frozenset({"scores"})

    def prepare(self) -> None:
        """Raise `OutputError` when rasterio or pyogrio is missing."""
        load_rasterio()
        _load_pyogrio()

    def write_annotations(self, annotations: AnnotationSet, out: Path, export: Export = DEFAULT_EXPORT) -> Path:
        """Write `out`/objects.gpkg, an image in memory at a time; returns its path.

        A layer for each reference system, called by its code (`epsg_32632`); objects of images without a place on
        earth lie in the layer `pixels`, y pointing down. Raises `OutputError`.
        """
        path, layers = out / self.output, set[str]()
        with atomic_path(path) as beside, _writing(path):
            beside.unlink()  # what is there is opened, and an empty file is no database
            for image in as_objects(annotations).images or [_NO_IMAGE]:
                place = georeference_of(image.path or image.part_of, image.size_hw[0], page_of(image.name))
                layer = _layer_of(place)
                _append(beside, layer, image, place, export.tolerance, new=layer not in layers)
                layers.add(layer)
        return path


def _append(path: Path, layer: str, image: LabelledImage, place: Georeference, tolerance: float, *, new: bool) -> None:
    """Add the objects of an image to a layer, which a first call makes, with or without objects."""
    objects = [one.instance for one in image.annotations if not one.ignore]
    shapes = [_binary(polygons_of(one, place.transform, tolerance)) for one in objects]
    facts = [properties_of(one, place, image.name) for one in objects]
    columns = [np.array([fact.get(name) for fact in facts], kind) for name, kind in _FIELDS.items()]
    if not objects and not new:
        return
    _load_pyogrio().raw.write(
        path,
        np.array(shapes, object),
        columns,
        list(_FIELDS),
        layer=layer,
        driver="GPKG",
        geometry_type="MultiPolygon",
        crs=place.crs.to_wkt() if place.crs else None,
        append=not new or path.exists(),
        nan_as_null=True,
    )


def _layer_of(place: Georeference) -> str:
    if not place.crs:
        return "pixels"
    authority = place.crs.to_authority()
    if authority:
        return "_".join(authority).lower()
    return "".join(letter if letter.isalnum() else "_" for letter in place.crs.to_string())[:40].lower()


def _binary(parts: Sequence[Rings]) -> bytes:
    """A MultiPolygon as well-known binary, little-endian."""
    polygons = [_head(_POLYGON, len(rings)) + b"".join(map(_ring, rings)) for rings in parts]
    return _head(_MULTIPOLYGON, len(parts)) + b"".join(polygons)


def _head(kind: int, count: int) -> bytes:
    return struct.pack("<BII", 1, kind, count)


def _ring(points: Sequence[Sequence[float]]) -> bytes:
    return struct.pack("<I", len(points)) + np.asarray(points, "<f8").tobytes()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """With a fixed date in the file, and with pyogrio's errors in our words."""
    pyogrio = _load_pyogrio()
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _DATE})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # images without a place on earth have none
            yield
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        raise OutputError(f"{path}: cannot be written ({error})") from error
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _load_pyogrio() -> Any:
    """pyogrio. Raises `OutputError` with the way to get it."""
    try:
        import pyogrio
        import pyogrio.errors
    except ImportError as error:
        raise OutputError("GeoPackage needs pyogrio; pip install 'kshot[geo]'") from error
    return pyogrio


FORMAT = Geopackage()
