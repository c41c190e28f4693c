"""Masks in the folder of one class: whether several labels in one are objects of it, or other classes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.pairing import ending_of
from kshot.annotations.skipped import Skipped
from kshot.errors import ImageReadError, MaskError, plural
from kshot.io.class_masks import ClassMask, MaskKind, read_class_mask
from kshot.types import IGNORE, check_same_size

_OF_OBJECTS = ("labels", "cp_masks")
"""Endings of names that say that a mask numbers objects."""


def check_masks(masks: Sequence[Path], folder: str, skipped: Skipped) -> list[Path]:
    """Refuse masks of one class that hold several classes; returns those that can be read.

    folder: what messages call it. skipped: takes a note of what masks were taken for, if it needs a word, and the
    errors of files that are damaged. Raises `MaskError` and `ShapeError`.
    """
    read = []
    for path in masks:
        with skipped.alone(ImageReadError):
            read.append((path, _without_pixels(read_class_mask(path))))
    _check_palettes([(path, mask) for path, mask in read if mask.kind is MaskKind.PALETTE and not _named(path)])
    evident = any(_numbers_objects(path, mask) for path, mask in read)
    for path, mask in read:
        _check_labels(path, mask, [folder] if evident else [])
    counts = Counter(mask.kind for _, mask in read)
    objects = max((len(mask.labels) for _, mask in read), default=0)
    told = [f"{counts[kind]} by {kind.value}" for kind in (MaskKind.SOFT, MaskKind.ALPHA) if counts[kind]]
    told += [f"up to {objects} labels in one, which are taken as objects of the class"] * (objects > 1)
    if told:
        skipped.note(f"{folder}: {plural(len(read), 'mask')}, {'; '.join(told)}")
    return [path for path, _ in read]


def read_masks(masks: Sequence[Path], others: Iterable[Path]) -> NDArray[np.uint8]:
    """All masks of one image together: 1 where one shows the class, 255 where one ignores, (h, w).

    others: masks of the same folder, which are read where two labels alone do not say whether they are objects. Raises
    `MaskError`, also for masks of different sizes, and what `read_class_mask` raises.
    """
    read = [read_class_mask(path) for path in masks]
    for path, mask in zip(masks, read, strict=True):
        _check_labels(path, mask, (other for other in others if _numbers_objects(other, read_class_mask(other))))
        check_same_size(mask.pixels.shape, read[0].pixels.shape, str(path))
    marked = np.any([mask.pixels == 1 for mask in read], axis=0)
    ignored = np.any([mask.pixels == IGNORE for mask in read], axis=0)
    return np.where(marked, np.uint8(1), np.where(ignored, np.uint8(IGNORE), np.uint8(0)))


def read_objects(masks: Sequence[Path], others: Iterable[Path]) -> NDArray[np.int32]:
    """(h, w) numbers from 1 on of the objects that the masks of one image tell apart: by their labels, or a mask each.

    others: masks of the same folder; a single label, or a drawing, is one object where one of them numbers objects.
    Raises `MaskError` where neither does, and as `read_masks` does.
    """
    read_masks(masks, others)  # refuses classes in place of objects, and other sizes
    read = [read_class_mask(path) for path in masks]
    told = len(masks) > 1 or any(mask.objects is not None for mask in read)
    if not told and not any(_numbers_objects(path, read_class_mask(path)) for path in others):
        raise MaskError(f"{masks[0]}: tells no objects apart; give each a number in it and call it x_labels.png")
    numbers = np.zeros(read[0].pixels.shape, np.int32)
    for mask in read:
        own = (mask.pixels == 1).astype(np.int32) if mask.objects is None else mask.objects.astype(np.int32)
        numbers = np.where(own > 0, own + numbers.max(), numbers)
    return numbers


def _without_pixels(mask: ClassMask) -> ClassMask:
    return ClassMask(mask.pixels[:0], mask.kind, mask.labels)


def _named(path: Path) -> bool:
    return ending_of(path.stem) in _OF_OBJECTS


def _numbers_objects(path: Path, mask: ClassMask) -> bool:
    """Whether a mask alone says that its labels are objects: by its depth or name, or as more than two count from 1."""
    counted = mask.kind is MaskKind.LABELS and len(mask.labels) > 2 and _in_a_row(mask)
    return len(mask.labels) > 1 and (mask.kind is MaskKind.DEEP or _named(path) or counted)


def _in_a_row(mask: ClassMask) -> bool:
    """Whether the labels count from 1; up to half of the numbers may be missing."""
    return 2 * len(mask.labels) >= max(mask.labels)


def _check_labels(path: Path, mask: ClassMask, evident: Iterable[object]) -> None:
    """Refuse several labels unless they are objects. evident: anything in it says that the folder's masks are so."""
    if len(mask.labels) < 2 or _numbers_objects(path, mask):
        return
    if mask.kind is MaskKind.LABELS and _in_a_row(mask) and any(True for _ in evident):
        return
    raise _several(str(path), mask.labels)


def _check_palettes(masks: Sequence[tuple[Path, ClassMask]]) -> None:
    """Refuse colours of different classes in different files, such as the dog's in one and the sofa's in another."""
    shown = {label: path for path, mask in reversed(masks) for label in mask.labels}
    if len(shown) > 1:
        paths = dict.fromkeys(str(shown[label]) for label in sorted(shown))
        raise _several(" and ".join(list(paths)[:2]), sorted(shown))


def _several(where: str, labels: Sequence[int]) -> MaskError:
    named = ", ".join(map(str, labels[:-1][:8])) + (", ..." if len(labels) > 9 else "") + f" and {labels[-1]}"
    return MaskError(
        f"{where}: the labels {named} in masks of one class; set those of other classes to 0 (or {IGNORE}, ignore), or "
        "name them all in classes.json beside images/ and masks/; if they number objects of the class, call the masks "
        "x_labels.png"
    )
