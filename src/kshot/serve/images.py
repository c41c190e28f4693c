"""The images that are served: their pixels, copies of them for the page, and their features."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.batch.inputs import Images, Input, common_root, plan, split
from kshot.errors import ImageReadError
from kshot.features import FeatureCache
from kshot.features.lru import SharedCache
from kshot.io import rasters
from kshot.io.images import read_image
from kshot.io.ome_zarr import is_zarr
from kshot.io.pages_and_frames import read_images
from kshot.io.paths import file_of
from kshot.io.tiff import Page, pages
from kshot.io.valid_pixels import page_with_nodata, valid_pixels
from kshot.io.videos import is_video
from kshot.ops.geometry import FeatureMap
from kshot.ops.support_crops import Window
from kshot.report.thumbnails import shrunk
from kshot.segmenter import Segmenter

THUMBNAIL, SCREEN = 256, 1600
"""Sides of the copies of an image that the page asks for; 0 is the image itself."""
_PIXEL_BYTES, _FEATURE_BYTES, _COPY_BYTES = 256 * 2**20, 512 * 2**20, 96 * 2**20
_LARGE = 2**26  # pixels of a page from which copies are read from single rows


class ServedImages:
    """Images by their number. Threads may share it.

    images, out, given: as in `batch.plan`. every: of a video each `every`-th frame is an image. Raises `InputError`
    when there is no image.
    """

    def __init__(
        self, segmenter: Segmenter, images: Images, out: Path, given: dict[str, str], cache: Path | None, every: int = 1
    ):
        self.segmenter, self.cache = segmenter, FeatureCache(cache)
        self.root = common_root(images).resolve()
        # A video's frames do not all fit the memory: they are decoded again.
        self.inputs = [replace(one, frame=None) for file in plan(images, out, given) for one in split(file, every)]
        self.names = [one.name for one in self.inputs]
        self.indices = {name: index for index, name in enumerate(self.names)}
        self._pixels = SharedCache[NDArray[np.uint8]](_PIXEL_BYTES, lambda pixels: pixels.nbytes)
        self._features = SharedCache[FeatureMap](_FEATURE_BYTES, lambda found: found.features.nbytes)
        self._copies = SharedCache[bytes](_COPY_BYTES, len)
        self._valid = SharedCache[NDArray[np.bool_]](_COPY_BYTES, lambda valid: valid.nbytes)

    def __len__(self) -> int:
        return len(self.inputs)

    def index_of(self, path: Path) -> int | None:
        """The number of an image by its file; None when it is not among them."""
        found = path.resolve()
        return next((index for index, one in enumerate(self.inputs) if one.path.resolve() == found), None)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """(h, w, 3). Raises `InputError`s; an image that is gone since gives `ImageReadError`."""
        return self._pixels.get(index, lambda: self._read(self.inputs[index]))

    def data(self, index: int) -> bytes:
        """What stands for the image in the feature cache and in manifests: the file's bytes, or a page's pixels."""
        one = self.inputs[index]
        if file_of(one.name) != one.name or is_zarr(one.path):
            return self.pixels(index).tobytes()
        try:
            return one.path.read_bytes()
        except OSError as error:
            raise ImageReadError(f"{one.name}: cannot be read ({error.strerror or error})") from error

    def sha256(self, index: int) -> str:
        """Of `data`, as manifests have it."""
        return hashlib.sha256(self.data(index)).hexdigest()

    def features(self, index: int, window: Window | None = None) -> FeatureMap:
        """Of an image, or of a part of it: from memory, the cache on the disk, or the backbone. Raises as `pixels`."""

        def make() -> FeatureMap:
            segmenter = self.segmenter
            selection = repr(segmenter.band_selection).encode() if segmenter.band_selection.bands else b""
            part = b"" if window is None else repr(tuple(window)).encode()
            return self.cache.get(
                self.data(index) + selection + part,
                segmenter.backbone,
                segmenter.size,
                lambda: segmenter.features(self.pixels(index) if window is None else window.of(self.pixels(index))),
            )

        return self._features.get((index, window), make)

    def valid_mask(self, index: int, size_hw: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """(h, w) at this size: where the image has data; None where it has it everywhere. Raises `ImageReadError`."""
        one = self.inputs[index]
        if one.problem or is_video(one.path) or page_with_nodata(one.path, one.page or 1) is None:
            return None
        whole = self._valid.get(index, lambda: _or_all(valid_pixels(one.path, one.page or 1)))
        rows, columns = (rasters.preview_pixels(old, old, new) for old, new in zip(whole.shape, size_hw, strict=True))
        return whole[rows][:, columns] if whole.size > 1 else None

    def jpeg(self, index: int, side: int) -> bytes:
        """A copy of the image whose longer side is at most `side`; 0: the image's own size."""
        return self._copies.get((index, side), lambda: self._jpeg(index, side))

    def view(self, index: int, side: int = SCREEN) -> NDArray[np.uint8]:
        """(h, w, 3): the image, or a copy whose longer side is `side`."""
        pixels = self.pixels(index)
        return pixels if max(pixels.shape) <= side else np.asarray(shrunk(Image.fromarray(pixels), side))

    def size_of_copy(self, index: int, side: int) -> tuple[int, int]:
        """Height and width of `view`, without decoding the image again. Raises as `pixels` does."""
        height, width = self.features(index).frame.size_hw
        scale = min(1.0, side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def window(self, index: int, box_xyxy: tuple[int, int, int, int], side: int) -> bytes:
        """A part of the image as JPEG, no side longer than `side`; of large TIFFs only that part is read.

        box_xyxy: in pixels of the image, with x0 < x1 and y0 < y1. Raises as `pixels` does, and `ImageReadError` for a
        box outside of the image.
        """
        one, page = self.inputs[index], self._large_page(self.inputs[index])
        height, width = page.size_hw if page is not None else self.pixels(index).shape[:2]
        x0, y0, x1, y1 = box_xyxy
        rows, columns = slice(y0, min(y1, height)), slice(x0, min(x1, width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            raise ImageReadError(f"{one.name}: has no pixels in {list(box_xyxy)}; it has {width} x {height}")
        if page is None:
            part = self.pixels(index)[rows, columns]
        else:
            with rasters.opened(one.path, page, self.segmenter.band_selection, one.name) as raster:
                part = raster.window(rows, columns)
        return _as_jpeg(Image.fromarray(part), side)

    def _jpeg(self, index: int, side: int) -> bytes:
        one, page = self.inputs[index], self._large_page(self.inputs[index])
        if page is None:
            image = Image.fromarray(self.pixels(index))
        else:
            with rasters.opened(one.path, page, self.segmenter.band_selection, one.name) as raster:
                image = Image.fromarray(raster.preview(side or SCREEN))
        return _as_jpeg(image, side or max(image.size))

    def _large_page(self, one: Input) -> Page | None:
        """The page of an image that is too large to be read whole for a copy."""
        if one.problem or is_video(one.path):
            return None
        found = pages(one.path)
        page = found[max(one.page, 1) - 1] if found else None
        if page is None or page.damaged or page.orientation > 1 or page.size_hw[0] * page.size_hw[1] <= _LARGE:
            return None
        return page

    def _read(self, one: Input) -> NDArray[np.uint8]:
        if one.problem:
            raise one.problem
        segmenter = self.segmenter
        if is_video(one.path):
            ((_, pixels),) = read_images({one.name: one.path}, segmenter.band_selection, segmenter.max_pixels)
            return pixels
        return read_image(
            one.path, max_pixels=segmenter.max_pixels, page=max(one.page, 1), selection=segmenter.band_selection
        )


def _as_jpeg(image: Image.Image, side: int) -> bytes:
    file = io.BytesIO()
    shrunk(image, side).save(file, "JPEG", quality=88 if side == THUMBNAIL else 93)
    return file.getvalue()


def _or_all(valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """A valid mask, or one pixel that stands for all."""
    return np.ones((1, 1), np.bool_) if valid is None else valid
