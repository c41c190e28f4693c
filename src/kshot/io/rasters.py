"""Images of many bands or of great size, through rasterio: whole, or one window at a time. Needs the extra `geo`."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import ImageReadError, ImageTooLargeError, SettingError
from kshot.io import limits
from kshot.io.bit_depth import Converter, Stretch, converter, extremes
from kshot.io.tiff import Page

log = logging.getLogger(__name__)
# A header of a few bytes may promise any number of pixels; nobody waits for more than these (65,000 a side).
MOST_PIXELS = 2**32
# Of GDAL's blocks; by default it takes 5 % of the machine's memory.
_CACHE_BYTES = 128 * 2**20
_STRIP_PIXELS = 2**22
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_warned_band_counts: set[int] = set()


@dataclass(frozen=True)
class BandSelection:
    """Which bands of a TIFF make the image, and how their values become 8 bits. Raises `SettingError`."""

    bands: tuple[int, ...] = ()
    """Three band numbers from 1, red first, or one, which is shown grey. None: the file's own colours, or its first
    three bands."""
    stretch: Stretch | None = None
    """(low, high): the values that become 0 and 255. None goes by the bit depth of the data."""

    def __post_init__(self) -> None:
        if len(self.bands) not in {0, 1, 3} or any(not isinstance(b, int) or b < 1 for b in self.bands):
            raise SettingError(f"bands {self.bands}: expected one or three band numbers from 1, such as 4,3,2")
        if self.stretch is not None:
            low, high = self.stretch
            if not (np.isfinite([low, high]).all() and low < high):
                raise SettingError(f"stretch {low:g},{high:g}: expected two numbers LOW,HIGH with LOW < HIGH")

    @classmethod
    def of(cls, bands: Sequence[int] | None, stretch: Sequence[float] | None) -> "BandSelection":
        """The selection from values that may be lists, or None. Raises `SettingError`."""
        if stretch is not None and len(stretch) != 2:
            raise SettingError(f"stretch {tuple(stretch)}: expected two numbers LOW,HIGH")
        return cls(tuple(bands or ()), None if stretch is None else (float(stretch[0]), float(stretch[1])))


def load(name: str) -> Any:
    """rasterio. Raises `ImageReadError` that names the image and the way to get it."""
    try:
        import rasterio
        import rasterio.windows
    except ImportError as error:
        raise ImageReadError(f"{name}: such a TIFF is read by rasterio; pip install 'kshot[geo]'") from error
    return rasterio


def read(source: Any, page: Page, selection: BandSelection, max_pixels: int | None, name: str) -> NDArray[np.uint8]:
    """A page of a path or of bytes as (h, w, 3) uint8. max_pixels: by default as `limits.PIXELS` says.

    Raises `ImageReadError`s and `ShapeError`.
    """
    max_pixels = limits.PIXELS.value if max_pixels is None else max_pixels
    with opened(source, page, selection, name) as raster:
        height, width = raster.size_hw
        if height * width > max_pixels:
            raise ImageTooLargeError(
                f"{name}: {width} x {height} = {width * height:,} pixels, over the limit of {max_pixels:,}; "
                "read it in windows (tiling, --tile 512), or raise max_pixels (--max-pixels, or KSHOT_MAX_PIXELS)"
            )
        image = raster.whole()
    return np.ascontiguousarray(turned(image, page.orientation))


def turned(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An image (h, w, ...) that is stored with an orientation tag, as it is displayed."""
    return _TURNS[orientation](image) if orientation in _TURNS else image


@contextmanager
def opened(source: Any, page: Page, selection: BandSelection, name: str) -> Iterator["Raster"]:
    """A page of a TIFF, open for reading windows. Raises `ImageReadError`."""
    rasterio = load(name)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES))
        with _in_our_words(name):
            if isinstance(source, bytes | bytearray | memoryview):
                source = stack.enter_context(rasterio.MemoryFile(bytes(source))).name
            where = f"GTIFF_DIR:off:{page.offset}:{source}" if page.directory else str(source)
            file = stack.enter_context(rasterio.open(where, driver="GTiff"))
        yield Raster(file, selection, name)


@contextmanager
def _in_our_words(name: str) -> Iterator[None]:
    """Turn GDAL's errors into `ImageReadError`, which names the image and a way out."""
    try:
        yield
    except load(name).errors.RasterioError as error:
        reason = str(error.__cause__ or error).strip() or type(error).__name__
        raise ImageReadError(f"{name}: {reason}; open it in a viewer and save it again, or leave it out") from error


class Raster:
    """An open page of a TIFF. Raises `ImageReadError` when it lacks a band that was asked for."""

    def __init__(self, file: Any, selection: BandSelection, name: str):
        self.file, self.selection, self.name = file, selection, name
        self.size_hw: tuple[int, int] = (file.height, file.width)
        self.bands = self._bands()

    @property
    def georeference(self) -> tuple[Any, Any]:
        """(coordinate reference system, affine transform from pixels), as rasterio has them."""
        return self.file.crs, self.file.transform

    @property
    def block_hw(self) -> tuple[int, int]:
        """Rows and columns of the blocks that the file is stored in."""
        height, width = self.file.block_shapes[0]
        return height, width

    def whole(self) -> NDArray[np.uint8]:
        """The image (h, w, 3)."""
        height, width = self.size_hw
        image = np.empty((height, width, 3), np.uint8)
        for rows in self._strips():  # deep bands would take many times the memory of the image
            image[rows] = self.window(rows, slice(0, width))
        return image

    def window(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """A part of the image (h, w, 3).

        Where a file of deep or chosen bands has no data, it is black: the value that stands for that may be any number.
        """
        planes = self._read(rows, columns)
        valid = self.valid(rows, columns) if self._pillow_mode is None else None
        return self._to_rgb(planes if valid is None else np.where(valid, planes, np.zeros((), planes.dtype)))

    def valid(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        """(h, w) of a part: whether a pixel holds data; None where the file leaves none out."""
        if not self.has_nodata:
            return None
        with _in_our_words(self.name):
            mask: NDArray[np.uint8] = self.file.dataset_mask(window=_window(rows, columns))
        return mask > 0

    @cached_property
    def has_nodata(self) -> bool:
        """Whether the file has a nodata value, a mask, or an alpha band and a place on earth."""
        flags = {flag.name for band in self.file.mask_flag_enums for flag in band}
        placed = not self.file.transform.is_identity
        return "nodata" in flags or ("per_dataset" in flags and ("alpha" not in flags or placed))

    def preview(self, side: int) -> NDArray[np.uint8]:
        """The image with no side longer than `side`: each pixel is the middle one of those that it stands for.

        Read row by row, so that memory does not grow with the image.
        """
        rows, columns = (preview_pixels(length, max(self.size_hw), side) for length in self.size_hw)
        lines = [self.window(slice(row, row + 1), slice(0, self.size_hw[1]))[0][columns] for row in rows]
        return np.ascontiguousarray(np.stack(lines))

    def stored(self, rows: slice, columns: slice) -> NDArray[Any]:
        """All bands (b, h, w) of a part as they are stored."""
        return self._read(rows, columns, tuple(range(1, self.file.count + 1)))

    def _read(self, rows: slice, columns: slice, bands: Sequence[int] = ()) -> NDArray[Any]:
        """Bands (b, h, w) as they are stored; by default the chosen ones."""
        with _in_our_words(self.name):
            planes: NDArray[Any] = self.file.read(list(bands or self.bands), window=_window(rows, columns))
        return planes

    def _bands(self) -> tuple[int, ...]:
        count = self.file.count
        wrong = [band for band in self.selection.bands if band > count]
        if wrong:
            raise ImageReadError(
                f"{self.name}: no band {wrong[0]}, it has {count}; choose bands (--bands) among 1..{count}"
            )
        if self.selection.bands:
            return self.selection.bands
        if self._pillow_mode:
            return tuple(range(1, count + 1))
        if count > 3 and count not in _warned_band_counts:
            _warned_band_counts.add(count)
            log.warning("%s: %d bands; red, green, blue are 1, 2, 3; bands (--bands) chooses others", self.name, count)
        return (1, 2, 3) if count >= 3 else (1,)

    @cached_property
    def _pillow_mode(self) -> str | None:
        """The mode of Pillow that shows this file's colours, alpha and palette; None for plain bands."""
        if set(self.file.dtypes) != {"uint8"} or self.selection.bands or self.selection.stretch or self.file.count > 4:
            return None
        seen = [colour.name for colour in self.file.colorinterp]
        if seen == ["palette"]:
            return "P"
        if seen == ["cyan", "magenta", "yellow", "black"]:
            return "CMYK"
        alpha = seen[-1] == "alpha"
        return _MODES[len(seen)] if alpha or len(seen) in {1, 3} else None

    def _to_rgb(self, planes: NDArray[Any]) -> NDArray[np.uint8]:
        """(h, w, 3) of the chosen bands (b, h, w)."""
        if self._pillow_mode is None:
            shown = self._to_8_bits(planes)
            return np.ascontiguousarray(np.broadcast_to(shown, (3, *shown.shape[1:])).transpose(1, 2, 0))
        layers = [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes]
        if self._pillow_mode == "P":
            colours = np.zeros((256, 3), np.uint8)
            for index, colour in self.file.colormap(1).items():
                colours[index] = colour[:3]
            layers[0].putpalette(colours.tobytes())
            return np.array(layers[0].convert("RGB"))
        return rgb(layers[0] if len(layers) == 1 else Image.merge(self._pillow_mode, layers))

    @cached_property
    def _to_8_bits(self) -> Converter:
        return converter(
            np.dtype(self.file.dtypes[self.bands[0] - 1]), self._extremes, self.name, self.selection.stretch
        )

    def _strips(self) -> Iterator[slice]:
        """The rows of the image, some rows of blocks at a time."""
        height, width = self.size_hw
        step = max(1, _STRIP_PIXELS // max(1, width * len(self.bands)) // self.block_hw[0]) * self.block_hw[0]
        for top in range(0, height, step):
            yield slice(top, min(top + step, height))

    def _extremes(self) -> tuple[float, float]:
        """Of the chosen bands over the whole file, where it has data."""
        found, columns = [], slice(0, self.size_hw[1])
        for rows in self._strips():
            planes, valid = self._read(rows, columns), self.valid(rows, columns)
            values = planes if valid is None else planes[:, valid]
            if values.size:
                found.append(extremes(values))
        # Not min and max, which lose NaN.
        low, high = np.array(found or [(0.0, 0.0)]).T
        return float(np.min(low)), float(np.max(high))


def _window(rows: slice, columns: slice) -> tuple[tuple[int, int], tuple[int, int]]:
    return (rows.start, rows.stop), (columns.start, columns.stop)


def preview_pixels(length: int, longest: int, side: int) -> NDArray[np.int64]:
    """Which of `length` pixels of a side a preview shows, when the longest side becomes at most `side` pixels."""
    count = max(1, round(length * min(1.0, side / longest)))
    kept: NDArray[np.int64] = ((np.arange(count) + 0.5) * length / count).astype(np.int64)
    return kept


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    """(h, w, 3) of an 8-bit image, alpha laid over white; a strip at a time, since Pillow takes four bytes a pixel."""
    shown, step = np.empty((image.height, image.width, 3), np.uint8), max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        strip = image.crop((0, top, image.width, min(top + step, image.height)))
        if strip.has_transparency_data:
            opaque = Image.new("RGBA", strip.size, "white")
            opaque.alpha_composite(strip.convert("RGBA"))
            strip = opaque
        shown[top : top + step] = np.asarray(strip.convert("RGB"))
    return shown
