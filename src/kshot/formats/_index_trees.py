"""Label trees of index masks beside their images."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.model import LabelledImage, LabelTree, Lazy, Part
from kshot.annotations.pairing import Pair, in_two_folders
from kshot.errors import MaskError
from kshot.io.images import read_mask
from kshot.io.paths import unique_stems
from kshot.types import IGNORE, check_same_size


def index_tree(images: Path, masks: Path, classes: Mapping[int, str], objects: Path | None = None) -> LabelTree:
    """Images with a mask, those that show nothing too. objects: a folder of masks that tell objects apart.

    Raises `SupportError` at once, and when an image is asked for `MaskError` and `ImageReadError`.
    """
    pairs = in_two_folders(images, masks)
    names = {pair: pair[0].relative_to(images).as_posix() for pair in pairs}
    stems = unique_stems(names.values())
    told_apart = objects is not None and objects.is_dir()

    def read(pair: Pair) -> LabelledImage:
        # With several classes 255 can but mean ignore; with one it is also how people draw it.
        mask = read_mask(pair[1], drawn=len(classes) == 1)
        of_objects = objects / pair[1].relative_to(masks) if told_apart and objects is not None else None
        parts = _parts(pair[1], mask, classes, of_objects if of_objects and of_objects.is_file() else None)
        return LabelledImage(names[pair], (mask.shape[0], mask.shape[1]), tuple(parts), pair[0], stems[names[pair]])

    return LabelTree(tuple(classes[label] for label in sorted(classes)), Lazy(pairs, read), told_apart)


def _parts(path: Path, mask: NDArray[np.uint8], classes: Mapping[int, str], objects: Path | None) -> Iterator[Part]:
    labels = np.unique(mask).tolist()
    unknown = sorted(set(labels) - {0, IGNORE} - classes.keys())
    if unknown:
        raise MaskError(
            f"{path}: holds labels that no class has: {unknown}; the classes are {', '.join(classes.values())}"
        )
    if IGNORE in labels:
        yield Part.of(mask == IGNORE, "", ignore=True)
    apart = _objects(objects, mask) if objects else None
    for label in (label for label in labels if label in classes):
        of_class = mask == label
        for number in [0] if apart is None else np.unique(apart[of_class]).tolist():
            yield Part.of(of_class if apart is None else of_class & (apart == number), classes[label])


def _objects(path: Path, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    objects = read_mask(path, drawn=False)
    check_same_size(objects.shape, mask.shape, str(path))
    return objects
