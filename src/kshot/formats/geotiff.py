"""GeoTIFF: index masks with the reference system and the transform of their images. Needs the extra `geo`."""

import json
from pathlib import Path

from kshot.errors import OutputError
from kshot.formats import _geo
from kshot.formats.png import palette
from kshot.formats.trees import Export, LabelTree
from kshot.formats.writing import atomic_path
from kshot.types import MAX_CLASSES

FOLDER_OUT = "geotiff"


def prepare() -> None:
    """Raise `OutputError` before a run rather than at its end when rasterio is missing."""
    _geo.load()


def write_tree(tree: LabelTree, out: Path, how: Export | None = None) -> Path:
    """Write `out`/geotiff/<stem>.tif, one band of labels with VOC's colours; returns the folder.

    The names of the classes are the tag `classes`. An image without a place on earth gives a plain TIFF. Lossless but
    for scores. Raises `OutputError`.
    """
    rasterio = _geo.load()
    colours = {label: (*colour, 255) for label, colour in enumerate(palette().tolist())}
    names = {label: name for label, name in enumerate(tree.classes, start=1) if label <= MAX_CLASSES}
    for image in tree.images:
        crs, transform = _geo.place_of(image.path)
        height, width = image.size_hw
        shape = {"height": height, "width": width, "count": 1, "dtype": "uint8"}
        path = out / FOLDER_OUT / f"{image.stem}.tif"
        with atomic_path(path) as beside, _geo.quiet():
            try:
                with rasterio.open(
                    beside, "w", driver="GTiff", crs=crs, transform=transform, compress="deflate", **shape
                ) as file:
                    file.write(image.labels(tree.classes), 1)
                    file.write_colormap(1, colours)
                    file.update_tags(classes=json.dumps(names))
            except rasterio.errors.RasterioError as error:
                raise OutputError(f"{path}: cannot be written ({error})") from error
    return out / FOLDER_OUT
