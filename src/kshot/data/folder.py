"""One's own data: images/ and masks/ with a list of classes, or a folder per class with pairs of x.jpg and x.png."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.one_class import read_masks, read_objects
from kshot.annotations.pairing import by_stem, owner_of, without_ending
from kshot.data import fss1000
from kshot.data._report import Problem, check_problems, read_list, split_samples
from kshot.data.base import Dataset, Labels, LabelType, Sample, label_type
from kshot.errors import DatasetError, MaskError, SupportError
from kshot.formats.index_masks import CLASS_FILES, read_classes
from kshot.io.images import read_mask
from kshot.io.paths import image_files, visible
from kshot.types import IGNORE

LOOKS_FOR = (
    "folder: images/x.jpg and masks/x.png (or x_mask.png) with index masks and classes.json or classes.txt, or "
    "<class>/x.jpg and <class>/x.png; train.txt and val.txt beside them split it"
)
_SPLITS = ("train", "val", "test")


def locate(root: Path) -> Path | None:
    """The folder itself when one of the two layouts lies here, else None."""
    if _has_index_masks(root):
        return root
    # FSS-1000 is a folder per class too, but with masks and splits of its own.
    of_classes = not fss1000.locate(root) and any(_pairs(path) for path in islice(_class_folders(root), 5))
    return root if of_classes else None


def load(
    root: Path, fold: int | None = None, strict: bool = False, cache: Path | None = None, min_area: int = 1
) -> Dataset:
    """Open a folder. min_area: pixels that a class needs in an image to be counted there.

    The classes have no folds: all are tested. Raises `DatasetError`.
    """
    if _has_index_masks(root):
        layout, (classes, samples, problems) = "images/ + masks/ with a list of classes", _index_masks(root)
    else:
        layout, (classes, samples, problems) = "one folder per class", _by_class(root)
    if not samples:
        raise DatasetError(f"{root}: no image with a mask here; looked for {LOOKS_FOR}")
    splits, absent = _splits(root, samples)
    tested = next((name for name in ("test", "val", "all") if name in splits), "train")
    return Dataset(
        name=root.resolve().name,
        family="folder",
        root=root,
        layout=layout,
        classes=classes,
        samples=samples,
        splits=splits,
        query_split=tested,
        support_split="train" if "train" in splits else tested,
        fold=fold,
        min_area=min_area,
        problems=check_problems(root, strict, [*problems, *absent]),
        cache=cache,
    )


def read_index(path: Path, n_classes: int) -> Labels:
    """(h, w) labels of an index mask; only a mask of a single class may be drawn in 0 and 255."""
    return read_mask(path, drawn=n_classes == 1)


def read_drawn(masks: Sequence[Path], others: Sequence[Path], class_id: int, kind: LabelType) -> Labels:
    """(h, w) labels of an image by all its masks of one class; `others` are those of its folder.

    Raises `DatasetError` when a mask shows several classes.
    """
    try:
        mask = read_masks(masks, others)
    except MaskError as error:
        raise DatasetError(str(error)) from error
    table = np.zeros(IGNORE + 1, kind)
    table[1] = class_id
    # Beyond 254 classes there is no ignore, and 255 would be a class.
    table[IGNORE] = IGNORE if kind is np.uint8 else 0
    return np.asarray(table[mask])


def read_numbers(masks: Sequence[Path], others: Sequence[Path]) -> NDArray[np.int32]:
    """(h, w) numbers of the objects of an image of one class, as `read_objects`. Raises `DatasetError`."""
    try:
        return read_objects(masks, others)
    except MaskError as error:
        raise DatasetError(str(error)) from error


_Parts = tuple[tuple[str, ...], dict[str, Sample], list[Problem]]


def _has_index_masks(root: Path) -> bool:
    return all((root / name).is_dir() for name in ("images", "masks")) and any(
        (root / n).is_file() for n in CLASS_FILES
    )


def _index_masks(root: Path) -> _Parts:
    try:
        path = next(root / name for name in CLASS_FILES if (root / name).is_file())
        named = read_classes(path)
        images, masks = by_stem(root / "images"), by_stem(root / "masks")
    except SupportError as error:
        raise DatasetError(str(error)) from error
    classes = _without_gaps(path, named)
    owned = {owner_of(stem, images): path for stem, path in masks.items()}
    samples = {
        stem: Sample(images[stem], partial(read_index, owned[stem], len(classes)), owned[stem])
        for stem in sorted(images.keys() & owned.keys())
    }
    return classes, samples, _unpaired(images, owned)


def _by_class(root: Path) -> _Parts:
    folders = list(_class_folders(root))
    classes = tuple(folder.name for folder in folders)
    samples: dict[str, Sample] = {}
    alone: list[str] = []
    for class_id, folder in enumerate(folders, start=1):
        pairs = _pairs(folder)
        others = [mask for _, masks in pairs.values() for mask in masks]
        for stem, (image, masks) in pairs.items():
            read = partial(read_drawn, masks, others, class_id, label_type(len(classes)))
            objects = partial(read_numbers, masks, others)
            samples[f"{folder.name}/{stem}"] = Sample(image, read, masks[0], objects)
        taken = {image for image, _ in pairs.values()}.union(others)
        alone += [f"{folder.name}/{path.name}" for path in image_files(folder) if path not in taken]
    return classes, samples, [Problem("images without a mask, or masks without an image", tuple(alone))]


def _pairs(folder: Path) -> dict[str, tuple[Path, list[Path]]]:
    """{stem: (image, masks)} of x.jpg and x.png, or of x.* and x_mask.png, x_mask_1.png."""
    files = image_files(folder)
    stems = {path.stem for path in files}
    marked: dict[str, list[Path]] = {}
    for path in files:
        if (owner := without_ending(path.stem)) != path.stem and owner in stems:
            marked.setdefault(owner, []).append(path)
    masks = {path.stem: [path] for path in files if path.suffix.lower() == ".png"} | marked
    drawn = {path for paths in marked.values() for path in paths}
    found = ((image, masks.get(image.stem, [])) for image in files if image not in drawn)
    return {image.stem: (image, own) for image, own in found if own and image not in own}


def _class_folders(root: Path) -> Iterator[Path]:
    """Sub-folders that hold images, in the order of their names."""
    return (path for path in visible(root) if path.is_dir() and image_files(path))


def _without_gaps(path: Path, named: Mapping[int, str]) -> tuple[str, ...]:
    gaps = sorted(set(range(1, max(named) + 1)) - named.keys())
    if gaps:
        raise DatasetError(f"{path}: labels without a class: {gaps[:8]}; name 1..{max(named)} without a gap")
    return tuple(named[label] for label in sorted(named))


def _unpaired(images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[Problem]:
    return [
        Problem("images without a mask", tuple(sorted(images.keys() - masks.keys()))),
        Problem("masks without an image", tuple(sorted(masks.keys() - images.keys()))),
    ]


def _splits(root: Path, samples: Mapping[str, Sample]) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """The lists beside the data, or everything as `all`."""
    lists = {name: read_list(root / f"{name}.txt") for name in _SPLITS if (root / f"{name}.txt").is_file()}
    if not lists:
        return {"all": tuple(samples)}, []
    return split_samples(lists, samples)
