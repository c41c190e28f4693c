"""Objects of a prediction: one `Instance` each, and the shapes in which other programs take them.

Whatever counts or writes objects (a run's summary, COCO, YOLO, tables) takes them from `find_instances`, so that all
numbers agree.
"""

import importlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot.errors import SettingError
from kshot.ops.components import connected_components, split
from kshot.ops.measures import intensities, shape_of
from kshot.ops.object_shapes import ObjectShape
from kshot.ops.polygons import Corners, rings

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

_PREVIEW = 1024  # pixels of the longer side of what a notebook shows


class Polygon(NamedTuple):
    """One connected part of an object, along the edges of its pixels; the first corner is not repeated."""

    label: str
    """Name of the class."""
    outer: Corners
    """(n, 2) xy, pixels."""
    holes: tuple[Corners, ...]
    """(n, 2) xy each."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One object in one image; its mask is kept as a crop, so that thousands of them fit the memory."""

    label: str
    """Name of the class."""
    crop: NDArray[np.bool_] = field(repr=False)
    """(h, w) of its box."""
    place: tuple[slice, slice]
    """Rows and columns of the image that the crop covers."""
    size_hw: tuple[int, int]
    """Of the image, in pixels."""
    score: float | None
    """Mean score of the class over its pixels, 0..1; None where labels have none."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(h, w) truth values at the image's size; made anew each time."""
        mask = np.zeros(self.size_hw, np.bool_)
        mask[self.place] = self.crop
        return mask

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edges in pixels; the last column is right - 1."""
        rows, columns = self.place
        return columns.start, rows.start, columns.stop, rows.stop

    @cached_property
    def area(self) -> int:
        """Its pixels."""
        return int(self.crop.sum())

    def area_over(self, pixel_areas: NDArray[np.float64]) -> float:
        """Its area in the unit of pixel_areas: (h,), the area of a pixel in each row of the image."""
        return float(self.crop.sum(1) @ pixel_areas[self.place[0]])

    @cached_property
    def centroid_xy(self) -> tuple[float, float]:
        """The mean of its pixels' centres; the first pixel's centre is (0.5, 0.5)."""
        rows, columns = self.place
        x = (self.crop.sum(0) @ np.arange(columns.start, columns.stop)) / self.area + 0.5
        y = (self.crop.sum(1) @ np.arange(rows.start, rows.stop)) / self.area + 0.5
        return float(x), float(y)

    def polygons(self, tolerance: float = 0.0) -> list[Polygon]:
        """A polygon with its holes per 4-connected part.

        tolerance: how far in pixels a line may leave the mask's edge; 0 follows every pixel.
        """
        corner = np.array([self.place[1].start, self.place[0].start], np.float64)
        found = []
        for (rows, columns), part in connected_components(self.crop, corners=False):
            outer, *holes = (ring + corner + [columns.start, rows.start] for ring in rings(part, tolerance))
            found.append(Polygon(self.label, outer, tuple(holes)))
        return found

    def measure(self, bands: NDArray[Any] | None = None) -> dict[str, float]:
        """Area, centroid, box and shape (`kshot.ops.measures`) in pixels.

        bands: (h, w, b) values of the image, for the mean and the standard deviation of each band.
        """
        (x, y), (x0, y0, x1, y1) = self.centroid_xy, self.box_xyxy
        facts: dict[str, float] = {"area_px": self.area, "centroid_x": x, "centroid_y": y}
        facts |= {"x0": x0, "y0": y0, "x1": x1, "y1": y1, **shape_of(self.crop)}
        return facts if bands is None else facts | intensities(bands[self.place], self.crop)


def find_instances(
    mask: NDArray[np.uint8],
    scores: NDArray[np.float32],
    classes: Sequence[str],
    method: str = "watershed",
    least: float = 0.0,
    shapes: Mapping[str, ObjectShape] | None = None,
) -> Iterator[Instance]:
    """The objects of a label map (h, w) with scores (N+1, h, w), class by class, each class from top to bottom.

    method, least, shapes (by class): as `kshot.ops.components.split` takes them. The masks are disjoint and
    together the label map. Raises `SettingError`.
    """
    size_hw = mask.shape[0], mask.shape[1]
    for index, name in enumerate(classes, start=1):
        score = scores[index]
        for place, crop in split(mask == index, score, method, least, (shapes or {}).get(name)):
            yield Instance(name, crop, place, size_hw, float(np.clip(score[place][crop].mean(), 0, 1)))


class Objects:
    """What a `Prediction` says as objects and in other programs' shapes; each is made when it is asked for.

    method: "watershed" takes objects apart that touch, "learned" does so where the parts are more like the supports'
    objects than the whole is, "components" takes each connected component as one.
    In the examples `pred` is the `Prediction` of one cell of 4 x 2 pixels, with its corner at (1, 1).
    """

    mask: NDArray[np.uint8]
    scores: NDArray[np.float32]
    classes: tuple[str, ...]
    image: NDArray[np.uint8] | None
    shapes: Mapping[str, ObjectShape]

    def instances(self, method: str = "watershed", least: float = 0.0) -> tuple[Instance, ...]:
        """The objects, class by class and each class from top to bottom: the same masks give the same order.

        least: pixels of what watershed splits off; a smaller part goes to those around it. Raises `SettingError`.

        >>> (cell,) = pred.instances()
        >>> cell.label, cell.area, cell.box_xyxy, cell.centroid_xy, round(cell.score, 2)
        ('cell', 8, (1, 1, 5, 3), (3.0, 2.0), 0.8)
        """
        return tuple(find_instances(self.mask, self.scores, self.classes, method, least, self.shapes))

    def boxes(self, method: str = "watershed") -> NDArray[np.float64]:
        """(n, 4) left, top, right and bottom edges of the objects, in the order of `instances`.

        >>> pred.boxes().tolist()
        [[1.0, 1.0, 5.0, 3.0]]
        """
        return np.array([one.box_xyxy for one in self.instances(method)], np.float64).reshape(-1, 4)

    def polygons(self, tolerance: float = 0.0, method: str = "watershed") -> list[Polygon]:
        """The objects as polygons with holes, in the order of `instances`; tolerance: see `Instance.polygons`.

        >>> [(polygon.label, polygon.outer.tolist(), polygon.holes) for polygon in pred.polygons()]
        [('cell', [[1.0, 1.0], [5.0, 1.0], [5.0, 3.0], [1.0, 3.0]], ())]
        """
        return [polygon for one in self.instances(method) for polygon in one.polygons(tolerance)]

    def to_pandas(self, method: str = "watershed") -> "pd.DataFrame":
        """A row per object: class, number from 1, score, and what `Instance.measure` gives with the image's bands.

        Raises `SettingError` without pandas.

        >>> pred.to_pandas()[["class", "object", "area_px", "solidity"]].values.tolist()
        [['cell', 1, 8, 1.0]]
        """
        rows = [
            {"class": one.label, "object": number, "score": one.score, **one.measure(self.image)}
            for number, one in enumerate(self.instances(method), start=1)
        ]
        return needed("pandas", "table").DataFrame(rows)

    def to_supervision(self, method: str = "watershed") -> "sv.Detections":
        """`supervision.Detections` with masks, scores and class ids from 0; names lie in `data["class_name"]`.

        Raises `SettingError` without supervision.

        >>> found = pred.to_supervision()
        >>> found.xyxy.tolist(), found.class_id.tolist(), found.data["class_name"].tolist(), int(found.area[0])
        ([[1.0, 1.0, 5.0, 3.0]], [0], ['cell'], 8)
        """
        library = needed("supervision", "interop")
        found = self.instances(method)
        masks = np.zeros((len(found), *self.mask.shape), np.bool_)
        for mask, one in zip(masks, found, strict=True):
            mask[one.place] = one.crop
        made: sv.Detections = library.Detections(
            xyxy=np.array([one.box_xyxy for one in found], np.float64).reshape(-1, 4),
            mask=masks,
            confidence=np.array([one.score for one in found], np.float64),
            class_id=np.array([self.classes.index(one.label) for one in found], np.int64),
            data={"class_name": np.array([one.label for one in found], np.str_)},
        )
        return made

    def to_coco(self, file_name: str = "image", method: str = "watershed") -> dict[str, Any]:
        """A COCO data set of this one image, with an annotation and a score per object; `json.dump` writes it.

        >>> coco = pred.to_coco("a.jpg")
        >>> [(each["bbox"], each["area"], each["score"]) for each in coco["annotations"]]
        [([1.0, 1.0, 4.0, 2.0], 8, 0.8)]
        """
        from kshot.formats.coco import document_of

        return document_of(self.classes, self.instances(method), file_name, (self.mask.shape[0], self.mask.shape[1]))

    def to_geojson(
        self,
        transform: Sequence[float] | None = None,
        crs: Any = None,
        *,
        source: str = "",
        tolerance: float = 0.0,
        method: str = "watershed",
    ) -> dict[str, Any]:
        """A GeoJSON FeatureCollection with a feature per object: source, class, score and areas as properties.

        transform: (a, b, c, d, e, f) with x = a * column + b * row + c and y = d * column + e * row + f, such as
        rasterio's `dataset.transform`; None for pixels. crs: what rasterio takes as a reference system, such as
        "EPSG:32633": coordinates then become WGS 84, as RFC 7946 wants them, and area_m2 stands beside area_px: the
        area on the map, or on the ellipsoid where the map is in degrees. It needs the extra `geo`; None leaves
        coordinates as they are. source: the name of the image, kept with each object.
        Raises `SettingError` for a reference system without a transform, one that is not known, and without rasterio.

        >>> (feature,) = pred.to_geojson(transform=(0.5, 0, 100, 0, -0.5, 200))["features"]
        >>> feature["geometry"]["coordinates"]
        [[[100.5, 199.5], [100.5, 198.5], [102.5, 198.5], [102.5, 199.5], [100.5, 199.5]]]
        """
        from kshot.formats.geojson import document_of, place_of

        if crs is not None and transform is None:
            raise SettingError("crs without transform: give the transform from pixels to coordinates too")
        place = place_of(crs, transform, self.mask.shape[0])
        return document_of(self.instances(method), place, tolerance, source)

    def show(self) -> None:
        """Show the overlay: below the cell in a notebook, else in the system's viewer of images."""
        if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
            importlib.import_module("IPython.display").display(self)
        else:
            self._preview().show()

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows of a prediction; None without its image."""
        if self.image is None:
            return None
        data = io.BytesIO()
        self._preview().save(data, "PNG")
        return data.getvalue()

    def _preview(self) -> Any:
        drawn = self.overlay()  # type: ignore[attr-defined]
        drawn.thumbnail((_PREVIEW, _PREVIEW))
        return drawn


def needed(library: str, extra: str) -> Any:
    """A library that kshot does without but for this. Raises `SettingError` that names the extra."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise SettingError(f"this needs {library}, which is not installed; pip install 'kshot[{extra}]'") from error
