"""A table of all objects of a folder of labels: a row each, with shape, size in units and the image's values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.model import AnnotationSet, LabelledImage, as_objects
from kshot.annotations.pairing import ImageFinder
from kshot.annotations.skipped import Skipped
from kshot.errors import OutputError, SettingError, SupportError
from kshot.formats.base import read_labels
from kshot.formats.kshot_run import images_of_run
from kshot.io.atomic import atomic_path, write_text
from kshot.io.bands import read_bands
from kshot.io.csv_rows import csv_text
from kshot.io.pages_and_frames import read_images
from kshot.io.paths import file_of, page_of
from kshot.io.pixel_size import METRES, PixelSize, ground_of, pixel_size_of
from kshot.io.rasters import BandSelection
from kshot.io.videos import is_video
from kshot.objects import Instance, needed
from kshot.ops.measures import in_units

SUFFIXES = (".csv", ".parquet")
_FIRST = ("image", "class", "object", "score", "area_px")


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """Rows of objects, in the order of the images' names and as their labels have them."""

    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    """image (its name), class, object (its number in the image from 1), score, then what `Instance.measure` gives, in
    pixels; with a pixel size area_um2, perimeter_um and so on, in one unit for all. Of maps in degrees, whose pixels
    are no squares, the area alone has a unit."""
    skipped: Skipped = field(default_factory=Skipped)
    """What could not be read, and which images say no pixel size where others do."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all values that some row has."""
        return tuple(dict.fromkeys([*_FIRST, *(name for row in self.rows for name in row)]))

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`. Raises `SettingError` without pandas."""
        return needed("pandas", "table").DataFrame(list(self.rows), columns=list(self.columns))

    def save(self, path: str | Path) -> Path:
        """Write a .csv, or a .parquet with the extra `table`. Raises `SettingError` and `OutputError`."""
        path = check_name(path)
        if path.suffix.lower() == ".csv":
            lines = ([_cell(row.get(name)) for name in self.columns] for row in self.rows)
            write_text(path, csv_text([self.columns, *lines]))
            return path
        needed("pyarrow", "table")
        frame = self.to_pandas()
        with atomic_path(path) as beside:
            try:
                frame.to_parquet(beside, index=False)
            except (ValueError, OSError) as error:
                raise OutputError(f"{path}: cannot be written ({error})") from error
        return path


def to_table(
    folder: str | Path, *, images: str | Path | None = None, pixel_size: str | PixelSize | None = None
) -> ObjectTable:
    """Measure every object of a folder that `label` or `predict` wrote, or of labels of any known layout.

    images: where the images are, when they have moved. pixel_size: of all images, such as "0.65um", "2mm" or "300dpi";
    by default what each TIFF says of itself (OME, ImageJ, a map's reference system, pixels per centimetre). The values
    inside an object are measured in the bands of the file as they are stored, mean_1, std_1, mean_2, ...; where its
    image is not found they are left out, and said.
    Raises `SettingError` for a pixel size without a unit, and `SupportError` where there are no labels.
    """
    given = PixelSize.parse(pixel_size) if isinstance(pixel_size, str) else pixel_size
    where, place = Path(folder), Path(images) if images is not None else None
    annotations, _ = read_labels(where, place)
    return _measured(as_objects(annotations), ImageFinder(where, place or images_of_run(where)), given)


def _measured(annotations: AnnotationSet, finder: ImageFinder, pixel_size: PixelSize | None) -> ObjectTable:
    skipped, unit = annotations.skipped, pixel_size.unit if pixel_size else ""
    rows: list[dict[str, Any]] = []
    without: dict[str, int] = {}
    for image, bands in _with_bands(annotations, finder):
        own = pixel_size or (pixel_size_of(image.path, page_of(image.name)) if image.path else None)
        ground = ground_of(image.path, image.size_hw[0], page_of(image.name)) if own is None else None
        unit = unit or (own.unit if own else "" if ground is None else "m")
        found = list(_rows(image, bands, own or ground, unit))
        rows += found
        if own is None and ground is None:
            without[image.name] = len(found)
    for name, count in without.items() if unit else ():
        skipped.leave_out("object without a size in units, as its image says no pixel size", name, count)
    return ObjectTable(rows, skipped)


def check_name(path: str | Path) -> Path:
    """The path of a table. Raises `SettingError` unless its suffix is one of `SUFFIXES`."""
    if PurePath(path).suffix.lower() not in SUFFIXES:
        raise SettingError(f"table (--table) {path}: expected a name that ends with {' or '.join(SUFFIXES)}")
    if PurePath(path).suffix.lower() == ".parquet":
        needed("pyarrow", "table")
    return Path(path)


def check_table(name: str | None, pixel_size: str | None) -> None:
    """Raise `SettingError` unless a run can write a table of this name in its folder, before its first image."""
    if pixel_size is not None:
        PixelSize.parse(pixel_size)
    if name is None:
        if pixel_size is not None:
            raise SettingError(f"pixel_size (--pixel-size) {pixel_size} without a table; add --table objects.csv")
        return
    if PurePath(name).name != name:
        raise SettingError(f"table (--table) {name}: expected a name without folders; it lies in the folder of results")
    check_name(name)


def _rows(
    image: LabelledImage, bands: NDArray[Any] | None, size: PixelSize | NDArray[np.float64] | None, unit: str
) -> Iterator[dict[str, Any]]:
    """size: of a pixel, or the square metres of a pixel in each row."""
    objects: list[Instance] = [one.instance for one in image.annotations if not one.ignore]
    for number, one in enumerate(objects, start=1):
        facts = one.measure(bands)
        scaled = {}
        if isinstance(size, PixelSize):
            scaled = in_units(facts, size.in_unit(unit), unit)
        elif size is not None:
            scaled = {f"area_{unit}2": one.area_over(size) / METRES[unit] ** 2}
        named = {"image": image.name, "class": one.label, "object": number, "score": one.score}
        yield named | facts | scaled


def _with_bands(annotations: AnnotationSet, finder: ImageFinder) -> Iterator[tuple[LabelledImage, NDArray[Any] | None]]:
    """Images with objects, each with its values (h, w, b), None where they cannot be read; a film is decoded once."""
    films: dict[Path, dict[str, LabelledImage]] = {}
    for image in (image for image in annotations.images if image.annotations):
        path = image.path or finder.find(file_of(image.name))  # of a page or frame the file that holds it
        image = replace(image, path=path)
        if path and is_video(path):
            films.setdefault(path, {})[image.name] = image
            continue
        bands = None
        with annotations.skipped.alone():
            bands = _fitting(read_bands(image.found, page_of(image.name)), image)
        yield image, bands
    for path, frames in films.items():
        with annotations.skipped.alone():
            for name, frame in read_images(dict.fromkeys(frames, path), BandSelection()):
                yield frames.pop(name), frame
        for image in frames.values():  # what a damaged film does not give
            yield image, None


def _fitting(bands: NDArray[Any], image: LabelledImage) -> NDArray[Any]:
    if bands.shape[:2] != tuple(image.size_hw):
        raise SupportError(f"{image.path}: has another size than its labels; its values are not measured")
    return bands


def _cell(value: Any) -> Any:
    """A value for CSV: floats with six significant digits, nothing for what is not known."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return float(f"{value:.6g}") if isinstance(value, float) else value
