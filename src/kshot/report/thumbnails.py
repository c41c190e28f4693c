"""Small copies of images, overlays and score maps, as data URIs that a page can carry."""

import base64
import io
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kshot.errors import KshotError
from kshot.formats import scores
from kshot.formats.overlay import draw
from kshot.io import rasters
from kshot.io.images import image_size, read_image, read_mask
from kshot.io.tiff import Page, pages
from kshot.types import Prediction

log = logging.getLogger(__name__)
# Dark to bright with steadily growing lightness, after the colour map inferno (Smith and van der Walt, CC0).
_HEAT = "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4"
_LARGE = 2**26  # pixels
_BROKEN = (KshotError, OSError, ValueError, SyntaxError)


def thumbnail(path: Path | None, side: int) -> Image.Image | None:
    """An RGB copy of an image file, no side longer than `side`; None when there is none or it cannot be read."""
    if path is None:
        return None
    try:
        large = _large(path)
        if large:
            with rasters.opened(path, large, rasters.BandSelection(), str(path)) as raster:
                return Image.fromarray(raster.preview(side))
        height, width = image_size(path)
        if path.suffix.lower() in {".jpg", ".jpeg"} and height * width < (Image.MAX_IMAGE_PIXELS or 0):
            return _fast(path, side)
        return shrunk(Image.fromarray(read_image(path)), side)
    except _BROKEN as error:
        log.warning("%s: left out of the report (%s)", path, error)
        return None


def _large(path: Path) -> Page | None:
    """The first page of a TIFF that is upright and too large to be read whole for a small image."""
    page = next(iter(pages(path)), None)
    upright = page is not None and page.orientation in {0, 1} and not page.damaged
    return page if page is not None and upright and page.size_hw[0] * page.size_hw[1] > _LARGE else None


def score_map(path: Path | None, side: int) -> Image.Image | None:
    """The score of everything but the background in colours from dark (0) to bright (1)."""
    if path is None:
        return None
    try:
        planes, _, _ = scores.read(path)
    except _BROKEN as error:
        log.warning("%s: left out of the report (%s)", path, error)
        return None
    small = np.asarray(shrunk(Image.fromarray(1 - planes[0]), side))
    return heat_map(small)


def heat_map(values: NDArray[np.float32]) -> Image.Image:
    """Values (h, w) in colours from dark (0) to bright (1)."""
    return Image.fromarray(_heat_colours()[np.rint(255 * values.clip(0, 1)).astype(np.uint8)])


def drawn_mask(path: Path | None, image: Image.Image | None, classes: Sequence[str], side: int) -> Image.Image | None:
    """An overlay made of an index mask and a small image, for runs that wrote no overlays; white without image."""
    if path is None:
        return None
    try:
        labels = read_mask(path, drawn=False)
    except _BROKEN as error:
        log.warning("%s: left out of the report (%s)", path, error)
        return None
    return drawn_labels(labels, image, classes, side)


def drawn_labels(mask: NDArray[np.uint8], image: Image.Image | None, classes: Sequence[str], side: int) -> Image.Image:
    """An overlay made of labels (h, w) and a small image; white without image."""
    labels = Image.fromarray(mask)
    canvas = image or Image.new("RGB", shrunk(labels, side).size, "white")
    small = np.asarray(labels.resize(canvas.size, Image.Resampling.NEAREST))
    return outlined(np.asarray(canvas), np.where(small > len(classes), 0, small).astype(np.uint8), classes, 0.5)


def outlined(image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[str], alpha: float) -> Image.Image:
    """An image with labels drawn into it as overlays do; alpha 0 draws outlines alone."""
    nothing = np.broadcast_to(np.float32(0), (len(classes) + 1, *labels.shape))
    return draw(Prediction(labels, nothing, dict.fromkeys(classes, 0.0), tuple(classes), image), alpha)


def data_uri(image: Image.Image | None) -> str | None:
    """A JPEG of the image as a data URI."""
    if image is None:
        return None
    file = io.BytesIO()
    # WebP saves a tenth of the bytes here and takes twenty times as long.
    image.save(file, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with no side longer than `side`; a smaller one stays as it is."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX if image.mode == "F" else Image.Resampling.LANCZOS)


def _fast(path: Path, side: int) -> Image.Image:
    """JPEG decodes at a half, a quarter or an eighth of its size for a fraction of the price."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * side, 2 * side))
        return shrunk(ImageOps.exif_transpose(image).convert("RGB"), side)


@cache
def _heat_colours() -> NDArray[np.uint8]:
    """(256, 3) colours."""
    anchors = np.frombuffer(bytes.fromhex(_HEAT), np.uint8).reshape(-1, 3)
    places = np.linspace(0, 255, len(anchors))
    bands = [np.interp(np.arange(256), places, anchors[:, band]) for band in range(3)]
    return np.rint(np.stack(bands, 1)).astype(np.uint8)
