"""Photographs without labels, and the views of them that encoders learn from."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from kshot.errors import ImageReadError, TrainingError, plural
from kshot.io.images import read_image, read_mask
from kshot.io.paths import list_images
from kshot.ops.geometry import FeatureMap, Frame, to_grid
from kshot.ops.prompt_masks import salient

log = logging.getLogger(__name__)
RGB = NDArray[np.uint8]  # (h, w, 3)
Thumbnail = NDArray[np.float32]
_ASPECT_RATIOS = (3 / 4, 4 / 3)  # width to height of a view
_HELD_OUT, _MAX_HELD_OUT = 0.04, 200  # fraction of the photographs that validate, and their largest number
# Of 1.36 million pairs of COCO's and other photographs 25 lay above it: all copies, two of them slightly cropped. The
# twelve pairs below it, at 0.86 and less, were different scenes. Wide plain scenes may correlate more by themselves.
_SAME = 0.9
_THUMBNAIL = 24  # pixels a side
_PATCH = 8  # of a frame as square as the view; any number does
_SHUFFLE = 1  # a random stream of its own


def find_photos(folder: Path, limit: int | None = None, without: Sequence[Path | str] = ()) -> tuple[list[Path], int]:
    """Readable photographs of a folder and its sub-folders, and how many near duplicates were left out of them.

    The order depends on the names alone (their hashes). limit: files that are looked at. without: folders of test
    images; photographs that show the same are left out. Damaged files are logged and left out. Each file is decoded
    once. Raises `InputError` for a folder without images, and `TrainingError` when no photograph can be read.
    """
    found = sorted(list_images(folder), key=lambda path: _hash(path.relative_to(folder).as_posix()))
    thumbnails: dict[Path, Thumbnail | None] = {}
    for path in found[:limit]:
        try:
            image = read_image(path)
        except ImageReadError as error:
            log.warning("left out: %s", error)
        else:
            thumbnails[path] = _thumbnail(image) if without else None
    if not thumbnails:
        raise TrainingError(f"{folder}: no readable image in it ({plural(len(found), 'file')} looked like one)")
    if not without:
        return list(thumbnails), 0
    kept = remove_near_duplicates({path: each for path, each in thumbnails.items() if each is not None}, without)
    return kept, len(thumbnails) - len(kept)


def remove_near_duplicates(photos: Mapping[Path, Thumbnail], folders: Sequence[Path | str]) -> list[Path]:
    """The photographs, given with their thumbnails, that show something else than every image of these folders.

    Two images show the same when their grey thumbnails correlate by more than 0.9: another size, compression or colour
    does not hide a copy; a crop does. Raises `InputError` for a folder without images.
    """
    others = np.stack([_thumbnail(read_image(path)) for folder in folders for path in list_images(folder)])
    return [path for path, thumbnail in photos.items() if float((others @ thumbnail).max()) <= _SAME]


def split_held_out(photos: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Photographs to validate on (4 %, 1 to 200), and to learn from; raises `TrainingError` for fewer than two."""
    if len(photos) < 2:
        raise TrainingError(f"{len(photos)} readable images: training needs two at least, and many to be useful")
    held_out = min(_MAX_HELD_OUT, max(1, round(_HELD_OUT * len(photos))))
    return list(photos[:held_out]), list(photos[held_out:])


def shuffled(seed: int, number: int, count: int) -> int:
    """Index of the photograph, of `count`, that is example `number`; each comes once before one comes again."""
    return int(_permutation(seed, number // count, count)[number % count])


def seeded_rng(seed: int, *indices: int) -> np.random.Generator:
    """A random generator that depends on these numbers alone."""
    return np.random.default_rng((seed, *indices))


def random_resized_crop_box(
    size_hw: tuple[int, int], rng: np.random.Generator, min_area: float
) -> tuple[int, int, int, int]:
    """A random box (left, top, right, bottom) that covers the fraction `min_area` to 1 of an image's area."""
    height, width = size_hw
    ratio = float(np.exp(rng.uniform(*np.log(_ASPECT_RATIOS))))
    area = height * width * rng.uniform(min_area, 1.0)
    wide, high = min(width, round((area * ratio) ** 0.5)), min(height, round((area / ratio) ** 0.5))
    left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
    return left, top, left + max(wide, 1), top + max(high, 1)


def crop_resize(image: RGB, box: tuple[int, int, int, int], side: int) -> Image.Image:
    """The box of an image, resized to a square of `side` pixels; the aspect ratio is not kept."""
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box)


def color_jitter(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Random brightness, contrast and saturation (0.65 to 1.35), and in 5 % of the calls no colour at all."""
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = kind(view).enhance(float(rng.uniform(0.65, 1.35)))
    return ImageEnhance.Color(view).enhance(0.0) if rng.random() < 0.05 else view


def to_pixels(views: Sequence[Image.Image], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Views of equal size as normalized pixels (b, 3, h, w)."""
    stacked = torch.from_numpy(np.stack([np.asarray(view) for view in views])).permute(0, 3, 1, 2).float() / 255
    return (stacked - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def checked_masks(folder: Path | str | None) -> Path | None:
    """A folder of masks, if there is one; raises `TrainingError` when it does not exist."""
    if folder is not None and not Path(folder).is_dir():
        raise TrainingError(f"{folder}: no such folder of masks")
    return None if folder is None else Path(folder)


def mask_of(photo: Path, folder: Path, masks: Path | None) -> NDArray[np.uint8] | None:
    """The mask (h, w) of a photograph, at the same place below `masks` as .png; None where there is none."""
    path = masks / photo.relative_to(folder).with_suffix(".png") if masks else None
    return read_mask(path) if path is not None and path.is_file() else None


def objectness_target(tokens: Tensor, mask: NDArray[np.uint8] | None, objectness: Tensor | None = None) -> Tensor:
    """How much of each patch shows the object, (grid, grid) in 0..1, for a photograph seen whole and square.

    tokens: (c, grid, grid). mask: (h, w), nonzero on the object; without one the object is the salient region of the
    tokens. objectness: (grid, grid) in 0..1, the prior of that region.
    """
    side = tokens.shape[1] * _PATCH
    if mask is None:
        return salient(FeatureMap(tokens.clone(), Frame((side, side), (side, side), _PATCH), objectness=objectness))
    whole = Frame((mask.shape[0], mask.shape[1]), (side, side), _PATCH)
    return to_grid(torch.from_numpy((mask > 0).astype(np.float32)), whole)


def _thumbnail(image: RGB) -> Thumbnail:
    """Grey values (576,) with mean zero and unit length."""
    grey = Image.fromarray(image).convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32).ravel()
    values = values - values.mean()
    unit: Thumbnail = values / max(float(np.linalg.norm(values)), 1e-9)
    return unit


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return seeded_rng(seed, _SHUFFLE, epoch).permutation(count)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
