"""Decode images and masks of every common kind into plain arrays.

Orientation tags are applied, alpha is laid over white, and deeper images come down to 8 bits by their bit
depth (10, 12, 14 or 16, the smallest that holds the brightest pixel), not by a stretch per image, so that
two frames of one camera keep their relation. TIFFs of many bands, or of more than one band and 8 bits, go through
rasterio (extra `geo`), HEIC through pi-heif (extra `heic`).
"""

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from kshot.errors import ImageReadError, ImageTooLargeError, MaskError, ShapeError
from kshot.io import limits, ome_zarr, rasters, tiff
from kshot.io.bit_depth import converter, extremes
from kshot.io.greys import is_soft
from kshot.io.rasters import BandSelection
from kshot.types import IGNORE, ImageLike, MaskLike, check_same_size

_JPEG, _TIFF = {".jpg", ".jpeg", ".jpe", ".jfif"}, {".tif", ".tiff"}
_OTHERS = {".png", ".bmp", ".dib", ".gif", ".webp", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".heic", ".heif"}
SUFFIXES = frozenset(_JPEG | _TIFF | _OTHERS | {".jp2", ".j2k", ".jpx"})
MAX_PIXELS = limits.PIXELS.default
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AS_IT_IS = BandSelection()
_ORIENTATION = 0x0112  # a tag of Exif
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_GREY, _INDEX = {"1", "L"}, {"P", "I", "F"}
LOSSY = {"JPEG", "MPO"}
"""Formats whose greys are not those that were saved."""
_STRIP_PIXELS = 2**22  # of a strip of rows or columns
_LARGE = 2**24  # pixels; smaller images may be packed as densely as they like
_pillow_limit = threading.Lock()


def read_image(
    image: ImageLike, *, max_pixels: int | None = None, page: int = 1, selection: BandSelection = _AS_IT_IS
) -> NDArray[np.uint8]:
    """Read a path, encoded bytes, a PIL image or an array into (h, w, 3) uint8 RGB.

    Arrays may be (h, w), (h, w, 1), (h, w, 3) or (h, w, 4); uint8, uint16, bool, or floats in 0..1. Torch tensors may
    also have the channels first. Channels are red, green and blue: images of OpenCV, which are BGR, need
    `image[..., ::-1]`.
    max_pixels: larger images are refused; by default as `limits.PIXELS` says. page: from 1, of a TIFF with several, or
    a plane of an OME-Zarr; of other files with several images the first is read. selection: bands and stretch of TIFFs,
    channels of an OME-Zarr.
    Raises `ImageReadError` (missing, not an image, damaged, no such page or band), `ImageTooLargeError` and
    `ShapeError`.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, name_of(image))
    if hasattr(image, "detach"):
        return _from_array(array_of_tensor(image), "the image tensor")
    if ome_zarr.is_zarr(image):
        return ome_zarr.opened(image, max_pixels).image(page, selection)
    pages = tiff.pages(image)
    if page != 1 and not 1 <= page <= len(pages):
        raise ImageReadError(f"{name_of(image)}: no page {page}, it has {max(1, len(pages))}")
    if pages and _many_bands(pages[page - 1], selection):
        return rasters.read(image, pages[page - 1], selection, max_pixels, name_of(image))
    try:
        with opened_image(image, max_pixels, pages[page - 1] if pages else None) as opened:
            return _rgb(upright(opened), name_of(image))
    except ImageReadError as error:
        if not pages or not isinstance(error.__cause__, UnidentifiedImageError):
            raise
        return rasters.read(image, pages[page - 1], selection, max_pixels, name_of(image))


def _many_bands(page: tiff.Page, selection: BandSelection) -> bool:
    """Whether Pillow would lose bands, bits or nodata of a page, or somebody chose among its bands."""
    deep = page.bits > 8 and (page.bands > 1 or (page.nodata and find_spec("rasterio") is not None))
    return not page.damaged and (deep or page.bands > 4 or bool(selection.bands) or selection.stretch is not None)


def read_mask(mask: MaskLike, *, drawn: bool = True, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Read a label map into (h, w) uint8: palette indices, grey values or truth values, never colours.

    A grey image that was drawn in black and white, hard or with soft edges (`is_soft`), or any JPEG, is cut at 128 into
    0 and 1, and so is the alpha channel of an image that is in part transparent. In palette images and arrays, and in
    grey images that hold other labels, 255 keeps its meaning, ignore.
    drawn: False says that an image is known to hold labels, so that a grey 255 is always ignore. max_pixels: as
    `read_image` has it. Raises `ImageReadError` and `ShapeError`.
    """
    name = name_of(mask)
    if isinstance(mask, np.ndarray):
        return _labels(mask, name)
    if hasattr(mask, "detach"):
        return _labels(array_of_tensor(mask), "the mask tensor")
    with opened_image(mask, max_pixels) as file:
        lossy = file.format in LOSSY
        opened = one_band(upright(file), name, drawn=drawn)
        labels = _labels(np.asarray(opened), name)
    if lossy and labels.max() < 128 and labels.any():
        raise ShapeError(f"{name}: labels do not survive in a JPEG; save the mask as PNG")
    if lossy or (drawn and opened.mode in _GREY and _looks_drawn(labels)):
        return (labels > 127).astype(np.uint8)
    return labels


def label_columns(path: Path, size_hw: tuple[int, int], max_pixels: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Strips of columns of a mask that holds labels, from the left: the first column, and labels (h, columns).

    size_hw: of the mask, or else `MaskError`. Takes one byte a pixel. Raises as `read_mask` does.
    """
    name, step = str(path), max(1, _STRIP_PIXELS // size_hw[0])
    with opened_image(path, max_pixels) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        check_same_size((opened.height, opened.width), size_hw, name)
        if opened.format in LOSSY:
            raise ShapeError(f"{name}: labels do not survive in a JPEG; save the mask as PNG")
        for left in range(0, opened.width, step):
            columns = opened.crop((left, 0, min(left + step, opened.width), opened.height))
            yield left, _labels(np.asarray(one_band(columns, name, drawn=False)), name)


def image_size(image: Path | bytes) -> tuple[int, int]:
    """(h, w) of an image file, or of its bytes, as displayed, from its header alone.

    Raises `ImageReadError`, and `ImageTooLargeError` over `limits.LABEL_PIXELS`, as labels of it are made.
    """
    if ome_zarr.is_zarr(image):
        return ome_zarr.opened(Path(str(image)), limits.LABEL_PIXELS.value).size_hw
    with opened_image(image, limits.LABEL_PIXELS) as opened:
        # As stored: from version 13 on, the size that Pillow gives of a TIFF is that of the turned image already.
        tags = getattr(opened, "tag_v2", None)
        width, height = opened.size if tags is None else (int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT]))
        return (width, height) if _on_its_side(opened) else (height, width)


def name_of(image: Any) -> str:
    """What to call an image in a message."""
    if isinstance(image, str | Path):
        return str(image)
    return {bytes: "the image given as bytes", np.ndarray: "the image array"}.get(type(image), "the image")


@contextmanager
def opened_image(
    image: Any, most: int | limits.Limit | None = None, page: tiff.Page | None = None
) -> Iterator[Image.Image]:
    """An open PIL image whose size was checked; whatever goes wrong inside is said in kshot's words.

    most: pixels, as a number that an option gave or a limit, by default `limits.PIXELS`. page: of a TIFF with several.
    """
    name, ours = name_of(image), ExitStack()
    try:
        if isinstance(image, Image.Image):
            opened = _unmapped(image, ours)
        else:
            opened = _open(ours.enter_context(tiff.at_page(image, page)) if page and page.directory else image, ours)
        _check_size(opened, image, limits.PIXELS if most is None else most)
        width, height = opened.size
        if min(width, height) < 1:
            raise ImageReadError(f"{name}: the image is empty ({width} x {height})")
        yield opened
    except (ImageReadError, MaskError, ShapeError):
        raise
    except FileNotFoundError as error:
        raise ImageReadError(f"{name}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise ImageReadError(f"{name}: a folder, where an image file was expected") from error
    except PermissionError as error:
        raise ImageReadError(f"{name}: not readable for this user; check its permissions") from error
    except MemoryError as error:
        raise ImageTooLargeError(f"{name}: does not fit the memory; cut it into tiles") from error
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        if "cannot identify" in reason:
            reason = "not an image, or of a kind that cannot be read"
        raise ImageReadError(f"{name}: {reason}; open it in a viewer and save it again, or leave it out") from error
    finally:
        ours.close()


def _check_size(opened: Image.Image, image: Any, most: int | limits.Limit) -> None:
    """Refuse an image of more pixels than are allowed, or than its bytes can hold. Raises `ImageTooLargeError`."""
    width, height = opened.size
    count, number = width * height, most if isinstance(most, int) else most.value
    said = f"{name_of(image)}: {width} x {height} = {count:,} pixels"
    if count > number:
        ours = limits.LABEL_PIXELS.variable if most == limits.LABEL_PIXELS else ""
        setting = ours or f"max_pixels (--max-pixels, or {limits.PIXELS.variable})"
        raise ImageTooLargeError(
            f"{said}, over the limit of {number:,}; raise {setting}, cut it up, or read a TIFF in tiles (--tile)"
        )
    if count > _LARGE and (size := _bytes_of(image)):
        dense = limits.PIXELS_PER_BYTE
        if count > size * dense.value:
            raise ImageTooLargeError(
                f"{said} in {size:,} bytes, over the limit of {dense.value:,} pixels a byte; leave it out, or raise "
                f"{dense.variable} if it is all of one colour"
            )


def _bytes_of(image: Any) -> int:
    """How many bytes an image is packed into; 0 where that is not known."""
    if isinstance(image, str | Path):
        return Path(image).stat().st_size
    return len(image) if isinstance(image, bytes | bytearray | memoryview) else 0


def upright(image: Image.Image) -> Image.Image:
    """The image as it is displayed; itself where it is stored so, since a copy of a large one costs memory."""
    turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    return ImageOps.exif_transpose(image) if turned else image


def _open(image: Any, ours: ExitStack) -> Image.Image:
    """An open PIL image; what has to be closed goes to `ours`."""
    source: Any = io.BytesIO(image) if isinstance(image, bytes | bytearray | memoryview) else image
    if not isinstance(source, str | Path | io.BytesIO | io.BufferedReader):
        raise ShapeError(f"expected a path, bytes, a PIL image or an array as the image, got {type(image).__name__}")
    # Pillow's own bomb limit is a global that raises before our size check can name the file and the setting.
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return _unmapped(ours.enter_context(Image.open(source)), ours)
        except UnidentifiedImageError:
            if not _is_heif(source):
                raise
            _heif(name_of(image)).register_heif_opener()
            return ours.enter_context(Image.open(source))
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _unmapped(image: Image.Image, ours: ExitStack) -> Image.Image:
    """The image; opened anew where Pillow 13 would misread it: the pixels of a TIFF that lies on its side, given by its
    path, are mapped into memory with the size of the turned image."""
    path = getattr(image, "filename", "")
    if not (path and image.format == "TIFF" and getattr(image, "tile", None) and _on_its_side(image)):
        return image
    file = ours.enter_context(Path(path).open("rb"))  # noqa: SIM115 - with `ours`
    again = ours.enter_context(Image.open(file))
    again.seek(image.tell())
    return again


def _on_its_side(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) in {5, 6, 7, 8}


def _is_heif(source: str | Path | io.BytesIO | io.BufferedReader) -> bool:
    """Whether a file begins like HEIF: a box called ftyp and one of its brands (ISO/IEC 23008-12, annex B)."""
    if isinstance(source, io.BytesIO | io.BufferedReader):
        source.seek(0)
        head = source.read(12)
        source.seek(0)
    else:
        with Path(source).open("rb") as file:
            head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _heif(name: str) -> Any:
    try:
        import pi_heif
    except ImportError as error:
        raise ImageReadError(f"{name}: a HEIC image is read by pi-heif; pip install 'kshot[heic]'") from error
    return pi_heif


def _rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(np.asarray(image), name)
    return rasters.rgb(image)


def array_of_tensor(tensor: Any) -> NDArray[Any]:
    """A torch tensor as an array whose channels are last; reading images needs no torch. Raises `ShapeError`."""
    shape = tuple(tensor.shape)
    if len(shape) == 4:
        raise ShapeError(f"a tensor of shape {shape} is a batch: give one image of it at a time, such as tensor[0]")
    try:
        array = np.asarray(tensor.detach().cpu())
    except TypeError as error:
        raise ShapeError(f"a tensor of {tensor.dtype} cannot be read; give uint8, or float32 in 0..1") from error
    if len(shape) != 3 or shape[0] not in {1, 3, 4}:
        return array
    if shape[2] in {1, 3, 4}:
        raise ShapeError(
            f"a tensor of shape {shape} may have its channels first or last; give a numpy array, whose are last: "
            "tensor.permute(1, 2, 0).numpy() or tensor.numpy()"
        )
    return np.moveaxis(array, 0, -1)


def _from_array(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in {1, 3, 4} or 0 in array.shape:
        raise ShapeError(f"{name}: expected the shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), got {array.shape}")
    to_8_bits = converter(array.dtype, lambda: extremes(array), name)
    if array.dtype == np.uint8 and array.shape[2] == 3:
        return np.ascontiguousarray(array)
    height, width, bands = array.shape
    shown, step = np.empty((height, width, 3), np.uint8), max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):  # whole, the numbers between would take many times the memory
        strip = to_8_bits(array[top : top + step])
        if bands == 4:
            alpha = strip[..., 3:].astype(np.float32) / 255
            strip = np.rint(strip[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        shown[top : top + step] = strip
    return shown


def integer_mask(array: NDArray[Any], name: str) -> NDArray[np.integer]:
    """A mask (h, w) of whole numbers, of one (h, w) or (h, w, 1) of them or of truth values. Raises `ShapeError`."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape:
        raise ShapeError(f"{name}: expected a mask of shape (h, w), got {array.shape}")
    if array.dtype.kind not in "biu":
        raise ShapeError(f"{name}: expected a mask of truth values or integer labels, got {array.dtype}")
    whole: NDArray[np.integer] = array.astype(np.uint8) if array.dtype.kind == "b" else array
    return whole


def _labels(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    whole = integer_mask(array, name)
    if whole.min() < 0 or whole.max() > 255:
        raise ShapeError(f"{name}: expected labels in 0..255, got {whole.min()}..{whole.max()}")
    return whole.astype(np.uint8)


def _looks_drawn(labels: NDArray[np.uint8]) -> bool:
    """Whether a grey image is black and white, with soft edges or without, rather than labels and 255 for ignore."""
    return not set(np.unique(labels).tolist()) - {0, IGNORE} or is_soft(labels)


def one_band(image: Image.Image, name: str, *, drawn: bool) -> Image.Image:
    """The band that holds a mask: an image of one band itself, the alpha where it varies, or greys saved as colours.

    drawn: whether the mask may be a drawing rather than labels. Raises `ShapeError` for colours, and where the alpha
    and the colours say different things.
    """
    if image.mode == "F":  # as ImageJ saves numbers of objects
        numbers = np.asarray(image)
        return image.convert("I") if (numbers % 1 == 0).all() and np.abs(numbers).max() < 2**24 else image
    if image.mode in _GREY | _INDEX or image.mode.startswith("I;"):
        return image
    extremes_of_alpha = alpha_extremes(image)
    if extremes_of_alpha and drawn:
        darkest, brightest = extremes_of_alpha
        if 2 * darkest >= brightest or _drawn_in_greys(image, brightest):
            raise ShapeError(
                f"{name}: both its alpha and its colours could be the mask; save it as a grey image without alpha"
            )
        return image.getchannel("A").point(lambda value: 255 if 2 * value >= brightest else 0)
    for bands, alpha in _strips(image):
        if (bands != bands[..., :1]).any():
            raise ShapeError(
                f"{name}: a colour image where a mask was expected; save the mask as an index (palette) or grey image"
            )
        if extremes_of_alpha and alpha is not None and bands[alpha == 0].any():
            raise ShapeError(f"{name}: labels that are transparent; save the mask as a grey image without alpha")
    return (image if image.mode in {"RGB", "RGBA", "LA"} else image.convert("RGB")).getchannel(0)


def alpha_extremes(image: Image.Image) -> tuple[int, int] | None:
    """The least and the largest alpha of an image; None of one that is equally transparent everywhere."""
    if image.mode not in {"RGBA", "LA"}:
        return None
    levels = [level for level, count in enumerate(image.getchannel("A").histogram()) if count]
    return (levels[0], levels[-1]) if len(levels) > 1 else None


def _drawn_in_greys(image: Image.Image, brightest: int) -> bool:
    """Whether the colours where the alpha is `brightest` are greys, and more than one."""
    greys = set[int]()
    for bands, alpha in _strips(image):
        inside = bands[alpha == brightest]
        if (inside != inside[:, :1]).any():
            return False
        greys |= set(np.unique(inside).tolist())
    return len(greys) > 1


def _strips(image: Image.Image) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
    """Strips of an image from the top, (rows, w, 3), with their alpha; whole they would take many times the memory."""
    step = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        strip = image.crop((0, top, image.width, min(top + step, image.height)))
        alpha = np.asarray(strip.getchannel("A")) if strip.mode in {"RGBA", "LA"} else None
        yield np.asarray(strip.convert("RGB")), alpha
